import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb

import paramz.analysis as pa
from paramz.analysis import plots
from paramz.analysis.plots.style import GROUP_COLORS, scale_colors

matplotlib.use("Agg")


@pytest.fixture
def ax() -> Axes:
    import matplotlib.pyplot as plt

    yield plt.subplots()[1]
    plt.close("all")


@pytest.fixture(scope="module")
def found() -> pa.Transfer:
    return pa.transfer(made_up_sweep({"sp": -1.2, "mup": 0.0}))


@pytest.fixture(scope="module")
def fit() -> pa.LawFit:
    n = np.geomspace(1e6, 1e9, 12)
    loss = (2 + 300 * n**-0.4) * (1 + 0.001 * np.random.default_rng(0).standard_normal(12))
    df = pd.DataFrame({"N": n, "loss": loss})
    return pa.ScalingLaw("power").fit(df, N="N", holdout=pa.largest("N", 2))


def two_inputs() -> pa.LawFit:
    rng = np.random.default_rng(0)
    n, d = np.geomspace(2e7, 2e9, 40), rng.permutation(np.geomspace(1e9, 1e11, 40))
    loss = (1.8 + 480 / n**0.35 + 2100 / d**0.37) * np.exp(0.004 * rng.standard_normal(40))
    df = pd.DataFrame({"params": n, "tokens": d, "loss": loss})
    return pa.ScalingLaw("chinchilla").fit(df, N="params", D="tokens")


def luminance(color: str) -> float:
    return float(np.dot([0.2126, 0.7152, 0.0722], to_rgb(color)))


def test_every_plot_draws_on_the_axes_it_is_given(
    ax: Axes, found: pa.Transfer, fit: pa.LawFit
) -> None:
    curves = [
        {"width": w, "step": t, "loss": 1.5 + 40 / w * t**-0.5}
        for w in (32, 64, 128)
        for t in range(1, 50)
    ]
    iso = pd.DataFrame({"N": [1e8, 2e8, 4e8], "C": 1e19, "loss": [2.1, 2.0, 2.1]})
    two = two_inputs()
    coord = pd.DataFrame(
        [{"module": "a", "width": w, "step": s, "quantity": "delta", "rms": w * s}
         for w in (64, 128) for s in (1, 2)]
    )  # fmt: skip
    assert plots.loss_curves(found, "sp", ax) is ax
    assert plots.optima(found, ax) is ax
    assert plots.regret(found, "sp", ax) is ax
    assert plots.collapse(pa.collapse(pd.DataFrame(curves)), ax) is ax
    assert plots.law(fit, ax=ax) is ax
    assert plots.residuals(fit, ax=ax) is ax
    assert plots.frontier(two, ax=ax) is ax
    assert plots.contours(two, ax=ax) is ax
    assert plots.coord_module(coord, "a", ax=ax) is ax
    assert plots.transfer(found, [ax, ax]) == [ax, ax]
    with pytest.warns(pa.LawWarning, match="minima of isoFLOP parabolas are biased"):
        assert plots.isoflop(iso, ax=ax) is ax


def test_loss_curves_ring_each_optimum_and_cross_what_diverged(
    ax: Axes, found: pa.Transfer
) -> None:
    plots.loss_curves(found, "sp", ax)
    rings = np.concatenate(
        [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    )
    optima = found.optima[found.optima["group"] == "sp"]
    np.testing.assert_allclose(rings[:, 0], optima["log2_opt"])
    crosses = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "x")
    curves = found.curves[found.curves["group"] == "sp"]
    assert crosses == (curves["diverged"] > 0).sum() > 0


def test_cliffs_do_not_squeeze_the_optima(ax: Axes, found: pa.Transfer) -> None:
    plots.loss_curves(found, "sp", ax)
    low, high = ax.get_ylim()
    best = found.optima["best"]
    assert low < best.min() and high > best.max()
    assert high - low < 5 * (best.max() - best.min())


def test_held_out_rows_are_stars(ax: Axes, fit: pa.LawFit) -> None:
    plots.law(fit, ax=ax)
    (stars,) = [line for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_array_equal(stars.get_ydata(), fit.held_out["loss"])


def test_an_optimum_at_the_edge_gets_an_arrow(ax: Axes) -> None:
    df = made_up_sweep({"sp": -1.2})
    plots.optima(pa.transfer(df[df["lr"] > 2.0**-8]), ax)
    assert any(line.get_marker() == "v" for line in ax.lines)


def test_the_legend_gives_a_drift_with_its_interval(ax: Axes) -> None:
    found = pa.transfer(made_up_sweep({"sp": -1.2}))
    plots.optima(found, ax)
    slope, lo, hi = found.drift.loc[0, ["slope", "lo", "hi"]]
    (text,) = [each.get_text() for each in ax.get_legend().get_texts()]
    assert text == f"sp: {slope:+.2f} [{lo:+.2f}, {hi:+.2f}] octave per doubling"


def test_scales_grow_lighter_and_groups_differ_in_marker() -> None:
    """What a grey print keeps."""
    shades = [luminance(c) for c in scale_colors([32, 64, 128, 256, 512]).values()]
    assert shades == sorted(shades) and min(np.diff(shades)) > 0.05
    assert len(set(plots.style.GROUP_MARKERS)) == len(GROUP_COLORS)


def test_modules_that_are_not_there_are_listed(ax: Axes) -> None:
    coord = pd.DataFrame({"module": ["a"], "width": 64, "step": 1, "quantity": "delta", "rms": 1.0})
    with pytest.raises(ValueError, match="no 'delta' above zero for module 'b'; modules: a; quant"):
        plots.coord_module(coord, "b", ax=ax)


def test_isoflop_needs_runs_at_equal_compute(ax: Axes) -> None:
    with pytest.raises(ValueError, match="no value of 'C' has runs at three values of 'N'"):
        plots.isoflop(pd.DataFrame({"N": [1e8, 2e8], "C": 1e19, "loss": [2.0, 2.1]}), ax=ax)


def test_collapse_flags_what_it_cannot_tell() -> None:
    rows = [
        {"width": w, "step": t, "loss": (1 + 4 / w) * t**-0.3}
        for w in (32, 64, 128)
        for t in range(1, 50)
    ]
    found = pa.collapse(
        pd.DataFrame(rows).assign(loss=lambda d: 4 / d["width"] * d["step"] ** -0.3)
    )
    assert found.at_bound and found.floor == pytest.approx(0, abs=1e-4)
    assert found.outcome == "undecided" and "one seed each" in found.sentence
    apart = [{"width": w, "step": t, "loss": 1.5 + t ** -(w / 64)} for w in (32, 64) for t in
             range(1, 50)]  # fmt: skip
    assert pa.collapse(pd.DataFrame(apart), floor=1.5).spread > 0.01
    with pytest.raises(
        ValueError, match="needs 3 values of 'width', you have 2: run more, or give"
    ):
        pa.collapse(pd.DataFrame(apart))
    with pytest.raises(ValueError, match="the floor 2.5 must be below every final loss"):
        pa.collapse(pd.DataFrame(apart), floor=2.5)
    with pytest.raises(ValueError, match="a collapse compares scales, but 'width' has one value"):
        pa.collapse(pd.DataFrame(rows[:49]))


def test_regret_panels_share_their_colours_and_one_bar(found: pa.Transfer) -> None:
    wide = pa.transfer(made_up_sweep({"sp": -1.2, "other": 0.3}))
    panels = plots.regrets(wide)
    assert [p.get_title() for p in panels] == ["sp", "other"]
    limits = {p.collections[0].get_clim() for p in panels}
    assert len(limits) == 1
    assert len(panels[0].figure.axes) == 3  # the bar
    matplotlib.pyplot.close("all")


def test_a_group_that_loses_nothing_has_no_regret_panel() -> None:
    found = pa.transfer(made_up_sweep({"mup": 0.0, "sp": -1.2}, noise=1e-5))
    assert [p.get_title() for p in plots.regrets(found)] == ["sp"]
    none = pa.transfer(made_up_sweep({"mup": 0.0}, noise=1e-5))
    assert plots.regrets(none) == []
    matplotlib.pyplot.close("all")


def test_eight_scales_are_told_apart_and_the_legend_is_off_the_data(ax: Axes) -> None:
    colors = [to_rgb(c) for c in scale_colors(2.0 ** np.arange(5, 13)).values()]
    apart = [np.linalg.norm(np.subtract(a, b)) for a, b in zip(colors, colors[1:], strict=False)]
    assert min(apart) > 0.1
    plots.optima(pa.transfer(made_up_sweep({"sp": -1.2, "mup": 0.0})), ax)
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= ax.get_window_extent().y1 - 1


def test_the_one_legend_names_the_scales_of_every_panel() -> None:
    df = made_up_sweep({"mup": 0.0, "sp": -1.2})
    widest = df["width"].max()
    found = pa.transfer(df[(df["parametrization"] == "mup") | (df["width"] < widest)])
    panels = plots.transfer(found)
    names = [text.get_text() for text in panels[-1].get_legend().get_texts()]
    assert names == [str(width) for width in sorted(df["width"].unique())]
    assert panels[0].get_legend() is None
    matplotlib.pyplot.close("all")


def ticks(ax: Axes, which: str) -> list[str]:
    ax.figure.canvas.draw()
    return [t.get_text() for t in getattr(ax, f"get_{which}ticklabels")()]


def test_counts_are_written_as_they_are_spoken_and_labels_do_not_overlap(ax: Axes) -> None:
    plots.contours(two_inputs(), ax=ax)
    assert "100M" in ticks(ax, "x") and "10B" in ticks(ax, "y")
    boxes = [t.get_window_extent() for t in ax.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_the_frontier_is_the_lower_envelope_of_the_law(ax: Axes) -> None:
    fit = two_inputs()
    plots.frontier(fit, to=1e22, ax=ax)
    line = next(x for x in ax.lines if str(x.get_label()).startswith("least loss"))
    c, loss = line.get_xdata(), line.get_ydata()
    assert c[-1] == pytest.approx(1e22) and (np.diff(loss) < 0).all()
    n = np.geomspace(2e7, 2e10, 300)
    along = fit.predict({"params": n, "tokens": 1e20 / 6 / n}, interval="none")["mean"].min()
    assert np.interp(np.log(1e20), np.log(c), loss) == pytest.approx(along, rel=1e-3)


def test_figures_of_compute_name_what_a_law_of_one_input_lacks(ax: Axes, fit: pa.LawFit) -> None:
    for figure in (plots.frontier, plots.contours):
        with pytest.raises(ValueError, match="'power' has the inputs x; this figure is of laws of"):
            figure(fit, ax=ax)


def test_the_isoflop_figure_shows_the_minima_and_windows_of_the_table(ax: Axes) -> None:
    n = np.geomspace(1e7, 1e9, 9)
    iso = pd.DataFrame({"N": n, "C": 1e19, "loss": 2 + 0.05 * np.log(n / 1e8) ** 2})
    found = pa.isoflop_minima(iso).iloc[0]
    with pytest.warns(pa.LawWarning, match="biased"):
        plots.isoflop(iso, ax=ax)
    (star,) = [x for x in ax.lines if x.get_marker() == "*"]
    assert star.get_xdata()[0] == pytest.approx(found["N"])
    filled, hollow = (len(x.get_xdata()) for x in ax.lines if x.get_marker() == "o")
    assert (filled, hollow) == (found["used"], found["runs"] - found["used"])


def test_a_theme_of_the_users_own_is_left_alone() -> None:
    import seaborn as sns

    before = matplotlib.rcParams.copy()
    try:
        sns.set_theme(style="darkgrid", font_scale=2)
        mine = plots.style.new_axes(None)
        assert mine.get_facecolor()[:3] == pytest.approx(to_rgb("#eaeaf2"), abs=0.01)
        assert mine.xaxis.label.get_size() == pytest.approx(24)
    finally:
        matplotlib.rcParams.update(before)
    assert plots.style.new_axes(None).get_facecolor()[:3] == (1, 1, 1)
    matplotlib.pyplot.close("all")


def test_the_readout_and_the_models_output_are_among_the_panels_in_forward_order() -> None:
    flat = {"readout": "output", "(model)": "", "a": "hidden", "b": "hidden", "c": "hidden"}
    powers = {"readout": 0.0, "(model)": 0.0, "a": 0.1, "b": 0.3, "c": 0.2}
    rows = [
        {"module": m, "role": flat[m], "width": w, "step": 1, "quantity": q, "rms": w ** powers[m]}
        for q, names in (("delta", ["readout", "c", "b", "a", "(model)"]), ("output", list("abc")))
        for m in names
        for w in (64, 128)
    ]
    assert plots.steepest(pd.DataFrame(rows), count=4) == ["b", "c", "readout", "(model)"]


def test_eight_widths_in_narrow_panels_have_labels_that_do_not_overlap() -> None:
    rows = [
        {"module": m, "width": w, "step": 1, "quantity": "delta", "rms": 1.0, "seed": 0}
        for m in "abc"
        for w in 2 ** np.arange(5, 13)
    ]
    panels = plots.coord_check(pd.DataFrame(rows), modules=list("abc"))
    shown = [t for t in ticks(panels[0], "x") if t]
    assert shown[-1] == "4096" and len(shown) >= 4
    boxes = [t.get_window_extent() for t in panels[0].get_xticklabels() if t.get_text()]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
    matplotlib.pyplot.close("all")


def test_the_ticks_of_two_laws_cover_both(ax: Axes) -> None:
    wide = pd.DataFrame({"width": [16, 32, 64, 128, 256, 512]})
    wide["loss"] = 1.5 + 4 / wide.width**0.6
    for index, runs in enumerate((wide, wide[:4])):
        plots.law(pa.ScalingLaw("power").fit(runs, x="width"), index=index, ax=ax)
    assert list(ax.get_xticks()) == [16, 32, 64, 128, 256, 512]
