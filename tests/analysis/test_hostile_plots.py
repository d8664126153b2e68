"""Figures of data that mislead where a figure takes no care: what a reader would take from them."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import paramz
import paramz.analysis as pa
from paramz.analysis import plots
from paramz.analysis.plots.style import group_style
from paramz.analysis.report.checks import checks_section
from paramz.analysis.report.decision import recommended, transfer_lines
from paramz.analysis.report.interactive import mark_
from paramz.analysis.report.section import View
from tests.analysis.made_up import store_check


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def check(first: dict[str, int]) -> pd.DataFrame:
    """Changes over four steps of modules, the first of which changes at a step of its own."""
    rows = [
        {"width": w, "step": s, "module": m, "quantity": "delta", "rms": 0.1 * s * (s >= at)}
        for m, at in first.items()
        for w in (64, 128)
        for s in (1, 2, 3, 4)
    ]
    return pd.DataFrame(rows)


def test_a_step_has_one_colour_in_all_panels() -> None:
    """Behind a readout that starts at zero, modules change from the second step on."""
    late, all_steps = plots.coord_check(check({"hidden": 2, "readout": 1}))
    of = {}
    for ax in (late, all_steps):
        drawn = [line for line in ax.lines if len(line.get_xdata())]
        for line in drawn:
            of.setdefault(round(float(line.get_ydata()[0]), 3), set()).add(to_hex(line.get_color()))
    assert len(of) == 4 and all(len(colours) == 1 for colours in of.values())


def test_checks_that_differ_are_not_averaged_into_one_line() -> None:
    df = check({"a": 1})
    both = pd.concat([df.assign(lr=0.1), df.assign(lr=0.4)])
    with pytest.raises(ValueError, match=r"2 values of lr \(0.1, 0.4\).*as df\[df.lr =="):
        plots.coord_module(both, "a")
    assert plots.steepest(both) == ["a"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_panels_are_drawn_as_there_are_axes(count: int) -> None:
    """Five were drawn, whatever was given: zip said which argument is longer."""
    df = check({"a": 1, "b": 1, "c": 1, "d": 1, "readout": 1})
    given = [Figure().subplots() for _ in range(count)]
    assert plots.coord_check(df, axes=given) == given
    assert all(ax.get_title() for ax in given)
    assert len(plots.steepest(df, count=0)) == 0


def test_other_numbers_of_axes_are_refused_with_the_panels() -> None:
    df = check({"a": 1, "b": 1})
    with pytest.raises(ValueError, match="3 axes for 2 panels, a delta, b delta: give 2, or none"):
        plots.coord_check(df, axes=[Figure().subplots() for _ in range(3)])
    with pytest.raises(ValueError, match="1 axes for 2 panels.*modules= says"):
        plots.coord_check(df, axes=[Figure().subplots()], modules=["a", "b"])


def test_a_module_that_diverges_changes_fastest() -> None:
    df = check({name: 1 for name in "abcdefg"})
    df.loc[(df.module == "g") & (df.width == 128) & (df.step == 4), "rms"] = np.inf
    assert "g" in plots.steepest(df)


# What goes like which power of width beside changes that are flat, and what the verdict names.
DEPARTURES = {
    "reach": (
        {("blocks.0", "reach"): 0.5},
        "blocks.0 \nFAIL: reach goes like width^+0.50 \nbefore",
    ),
    "output": ({("up", "output"): 0.5}, "up \nFAIL: output goes like width^+0.50 \nbefore"),
    "update": ({("up", "update"): 1.0}, "up \nFAIL: update goes like width^+1.00 \nat step"),
    "delta": ({("up", "delta"): 0.5}, "up \nFAIL: delta goes like width^+0.50 \nat step"),
    "undecided": (
        {("up", "update"): 0.2},
        "up \nUNDECIDED: update goes like width^+0.20 \nat step",
    ),
    "falls": ({("head", "delta"): -0.5}, None),  # as what reads out may
}


def departing_check(powers: dict[tuple[str, str], float]) -> pd.DataFrame:
    """A check whose sizes are flat but for these powers of width."""
    roles = {"blocks.0": "", "up": "hidden", "down": "hidden", "head": "output"}
    measured = [("blocks.0", "reach", 0)]
    measured += [(m, "output", 0) for m in roles]
    measured += [(m, q, s) for m in roles for q in ("delta", "update") for s in (1, 2)]
    rows = [
        {
            "parametrization": "mup", "optimizer": "adamw", "lr": 0.01, "seed": seed, "width": w,
            "step": s, "module": m, "role": roles[m], "quantity": q, "last": m == "head",
            "rms": (s or 1) * w ** powers.get((m, q), 0.0) * (1 + 0.001 * seed),
        }
        for m, q, s in measured for w in (64, 128, 256) for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", DEPARTURES)
def test_the_picture_of_a_check_shows_what_the_verdict_names(tmp_path: Path, name: str) -> None:
    powers, title = DEPARTURES[name]
    df = departing_check(powers)
    verdict = paramz.judge(df)
    assert (verdict.culprit is None) == (title is None)
    panels = plots.coord_check(df)
    titles = [ax.get_title() for ax in panels]
    quantities = [ax.get_ylabel().removeprefix("log₂ rms of ") for ax in panels]
    verdict.save(df, tmp_path, "check")
    html = checks_section(tmp_path, View(tmp_path, "", "lr", "loss", None)).html
    assert titles[-1].startswith("head \n(may shrink)")
    if title is None:
        assert titles == ["blocks.0", "up", "down", "head \n(may shrink)"]
        assert quantities == ["delta", "", "", ""] and "what the verdict names" not in html
        return
    (((module, quantity), power),) = powers.items()
    assert titles[0].startswith(title) and quantities[0] == quantity
    assert titles[1] == "blocks.0" and quantities[1] == ("delta" if quantity != "delta" else "")
    assert quantities[2:] == [""] * len(quantities[2:])
    (line,) = [a for a in panels[0].lines if len(a.get_xdata())][-1:]
    rise = np.ptp(np.asarray(line.get_ydata(), dtype=float))
    assert rise == pytest.approx(2 * power)
    # Panels have as many octaves, so that slopes compare, and a step has one colour in all.
    assert len({round(float(np.ptp(ax.get_ylim())), 6) for ax in panels}) == 1
    names = [text.get_text() for text in panels[-1].get_legend().get_texts()]
    assert names == (["1", "2"] if quantity in ("update", "delta") else ["0", "1", "2"])
    assert len({to_hex(h.get_color()) for h in panels[-1].get_legend().get_lines()}) == len(names)
    assert (
        "first what the verdict names (" in html and f'data-name="{title.split(chr(10))[0]}' in html
    )


def test_a_check_is_drawn_by_a_quantity_that_it_has() -> None:
    df = departing_check({("blocks.0", "reach"): 0.5})
    (ax,) = plots.coord_check(df, quantity="reach")
    assert ax.get_title() == "blocks.0 \n(may shrink)"  # reach is an upper bound
    with pytest.raises(
        ValueError, match="no quantity 'rech' in this table; it has reach, output, d"
    ):
        plots.coord_check(df, quantity="rech")
    with pytest.raises(ValueError, match="no module's update is above zero at two sizes or more"):
        plots.coord_check(df[df.width == 64], quantity="update")


def test_the_page_draws_the_rate_that_was_judged_and_models_that_differ(tmp_path: Path) -> None:
    for label, power in (("sp", 0.5), ("mup", 0.0)):
        store_check(tmp_path, label, power, power == 0)
    one = pd.read_csv(tmp_path / "mup.csv")
    pd.concat([one, one.assign(lr=0.1, rms=8 * one.rms)]).to_csv(tmp_path / "mup.csv", index=False)
    other = one.assign(module="net." + one.module, parametrization="other", rms=one.rms)
    other.to_csv(tmp_path / "other.csv", index=False)
    html = checks_section(tmp_path, View(tmp_path, "", "lr", "loss", None)).html
    assert "mup, lr 0.01: change of each" in html
    assert "net.readout" in html


def test_no_two_of_eighteen_groups_look_alike() -> None:
    styles = [group_style(index) for index in range(18)]
    assert len({color for color, _ in styles}) == len(set(styles)) == 18
    assert len({group_style(index)[1] for index in (0, 6, 12)}) == 3  # in grey, too


@pytest.mark.parametrize("sizes", [(1.1e8, 1.9e8), (1100, 1900), (2.1e9, 2.9e9)])
def test_axes_of_a_narrow_range_have_numbers(sizes: tuple[float, float]) -> None:
    n = np.linspace(*sizes, 6)
    df = pd.DataFrame({"N": n, "loss": 2 + 9 / n**0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.LawWarning)
        fit = pa.ScalingLaw("power").fit(df, N="N")
    for ax in (plots.law(fit), plots.residuals(fit)):
        low, high = ax.get_xlim()
        shown = [x for x in ax.get_xticks() if low <= x <= high]
        assert len(shown) >= 2, shown


def test_the_grey_band_of_residuals_is_that_of_logarithms() -> None:
    n = np.geomspace(1e7, 1e9, 8)
    df = pd.DataFrame({"N": n, "ce": 3 + 900 / n**0.4})
    ax = plots.residuals(pa.ScalingLaw("power").fit(df, loss="ce", residuals="loss", N="N"))
    assert ax.get_ylabel() == "residual, % of ce" and not ax.patches


def test_one_bad_run_does_not_flatten_isoflop_curves() -> None:
    n = np.geomspace(1e8, 1e10, 7)
    df = pd.DataFrame({"N": n, "C": 1e20, "loss": 2.5 + 0.02 * np.log(n / 1e9) ** 2})
    df.loc[0, "loss"] = 50.0
    with pytest.warns(pa.LawWarning):
        assert plots.isoflop(df).get_ylim()[1] < 3


def sweep(groups: dict[str, dict[int, float]], reach: float = 4.0) -> pa.Transfer:
    rows = [
        {"parametrization": g, "width": w, "lr": 2.0**x, "loss": 2 + 9 / w + 0.1 * (x - b) ** 2}
        for g, best in groups.items()
        for w, b in best.items()
        for x in np.arange(round(b) - reach, round(b) + reach + 0.1)
    ]  # fmt: skip
    return pa.transfer(pd.DataFrame(rows))


def test_values_outside_of_every_other_grid_are_not_said_to_cost_nothing() -> None:
    found = sweep({"sp": {64: -3.2, 128: -6.2, 256: -9.2}}, reach=1.0)
    (panel,) = plots.regrets(found)
    assert [t.get_text() for t in panel.texts].count("–") == 6


def test_a_group_without_the_largest_scale_is_named_by_its_own() -> None:
    """Its loss there is not a number, beside which no other can be lower."""
    found = sweep({"sp": {64: -5.2, 128: -5.2}, "mup": {64: -5.2, 128: -5.2, 256: -5.2}})
    assert recommended(found) == "mup"
    only = sweep({"mup": {64: -5.2, 128: -5.2}, "sp": {64: -3.2, 128: -5.2, 256: -7.2}})
    lines = transfer_lines(only, {"pass": "Pass", "fail": "Fail", "undecided": "Open"})
    assert dict(lines)["Loss"] == "2.074 at width 128 under mup, measured"


def test_the_page_says_the_scale_of_a_point_and_not_where_it_was_put() -> None:
    """Groups stand side by side, a few percent apart."""
    ax = plots.optima(sweep({g: {64: -5.2, 128: -5.2} for g in "abcd"}))
    points = [m["data-points"] for m in mark_(ax.figure).values() if "data-points" in m]
    told = {text for each in points for text in pd.io.json.ujson_loads(each) for text in text[2:]}
    assert {text.partition(",")[0] for text in told} == {"width 64", "width 128"}
    assert all(", best lr 0.02" in text for text in told)


def test_long_names_are_broken_into_lines() -> None:
    name = "model.layers.0.self_attn.q_proj.lora_B.default"
    (ax,) = plots.coord_check(check({name: 1}))
    assert max(map(len, ax.get_title().split("\n"))) <= 34
    assert any(m.get("data-name") == name for m in mark_(ax.figure).values())


def test_what_the_axis_cuts_off_and_scales_that_diverged_have_their_marks() -> None:
    rows = [
        {"width": w, "lr": 2.0**x, "loss": np.inf if w == 256 else 2 + 9 / w + 0.02 * (x + 6) ** 2}
        for w in (64, 128, 256) for x in range(-16, -3)
    ]  # fmt: skip
    found = pa.transfer(pd.DataFrame(rows))
    ax = plots.loss_curves(found, "all")
    edge = [line for line in ax.lines if line.get_transform() != ax.transData]
    crosses = [
        line.get_xdata() for line in edge if line.get_marker() == "x" and len(line.get_xdata())
    ]
    assert [len(x) for x in crosses] == [13]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["64", "128", "256"]
    top = ax.get_ylim()[1]
    above = (np.isfinite(found.curves["loss"]) & (found.curves["loss"] > top)).sum()
    assert sum(len(line.get_xdata()) for line in edge if line.get_marker() == "^") == above > 0
