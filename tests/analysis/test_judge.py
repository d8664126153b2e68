"""The judgement on made-up tables: what passes, what fails, and which cause is named."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.coordinates import judge
from paramz.analysis.slopes import local_slope

WIDTHS = (64, 128, 256, 512)
Size = Callable[[float], float]


def power(exponent: float) -> Size:
    return lambda width: (width / 64) ** exponent


def table(*rows: tuple[str, str, int, str, Size], last: tuple[str, ...] = ()) -> pd.DataFrame:
    """Rows (module, role, step, quantity, width -> size) over four widths and three seeds."""
    noise = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "parametrization": "mup",
                "optimizer": "adamw",
                "width": width,
                "seed": seed,
                "lr": 0.01,
                "step": step,
                "module": module,
                "role": role,
                "quantity": quantity,
                "rms": size(width) * np.exp(0.01 * noise.standard_normal()),
                "last": module in last,
            }
            for module, role, step, quantity, size in rows
            for width in WIDTHS
            for seed in range(3)
        ]
    )


def flat_layer(name: str = "layer", role: str = "hidden") -> list[tuple[str, str, int, str, Size]]:
    return [
        (name, role, 0, "output", power(0)),
        (name, role, 1, "delta", power(0)),
        (name, role, 1, "update", power(0)),
    ]


def test_a_random_part_that_shrinks_towards_a_limit_passes() -> None:
    shrinking: Size = lambda width: np.sqrt(1 + 100 / width)  # noqa: E731
    df = table(*flat_layer(), ("next", "", 1, "delta", shrinking))
    assert judge(df).passed
    sizes = np.repeat(WIDTHS, 3).astype(float)
    everywhere = np.polyfit(np.log(sizes), np.log([shrinking(w) for w in sizes]), 1)[0]
    assert everywhere < -0.15  # what a straight line would have been judged by
    assert local_slope(sizes, np.array([shrinking(w) for w in sizes]))[0] > -0.1


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 1.0])
@pytest.mark.parametrize("quantity", ["delta", "update"])
def test_another_exponent_fails(exponent: float, quantity: str) -> None:
    verdict = judge(table(*flat_layer(), ("wrong", "hidden", 1, quantity, power(exponent))))
    assert (verdict.outcome, verdict.culprit) == ("fail", "wrong")


@pytest.mark.parametrize(
    ("optimizer", "exponent", "outcome"),
    [
        ("sgd", -0.5, "pass"), ("adamw", -0.5, "fail"), ("sgd", 0.5, "fail"),
        ("mine", -0.5, "fail"),
        ("sgd", -2.0, "fail"),  # more than the lag of two that stand behind each other
    ],
)  # fmt: skip
def test_what_has_no_width_lags_under_sgd(optimizer: str, exponent: float, outcome: str) -> None:
    """A small table before a map to width: its gradient is a sum of random signs at first."""
    lags = [
        (name, role, 1, quantity, power(exponent))
        for name, role, quantity in (
            ("emb", "scalar", "update"), ("emb", "scalar", "delta"), ("up(input)", "", "delta"),
            ("narrow", "inward", "update"), ("narrow", "inward", "delta"),
        )
    ]  # fmt: skip
    df = table(*flat_layer("up", "input"), *flat_layer(), *lags).assign(optimizer=optimizer)
    assert judge(df).outcome == outcome


def test_growth_that_sets_in_at_large_widths_is_seen() -> None:
    late: Size = lambda width: np.sqrt(1 + (width / 128) ** 2)  # noqa: E731
    assert judge(table(*flat_layer(), ("wrong", "hidden", 1, "delta", late))).outcome == "fail"


def test_between_flat_and_the_next_exponent_is_undecided_and_says_what_would_decide() -> None:
    verdict = judge(table(*flat_layer(), ("odd", "hidden", 1, "delta", power(0.2))))
    assert (verdict.outcome, verdict.culprit) == ("undecided", "odd")
    assert "take widths twice as large" in verdict.finding


@pytest.mark.parametrize(
    ("axis", "larger"),
    [("rank", "take ranks twice as large"), ("experts", "take a base_width twice as large")],
)
def test_what_would_decide_is_said_in_the_terms_of_the_axis(axis: str, larger: str) -> None:
    df = table(*flat_layer(), ("odd", "hidden", 1, "delta", power(0.2)))
    finding = judge(df.rename(columns={"width": axis})).finding
    assert larger in finding and "widths" not in finding


def test_one_seed_says_that_its_interval_is_none_and_how_many_to_take() -> None:
    df = table(*flat_layer(), ("odd", "hidden", 1, "delta", power(0.2)))
    alone = df[df.seed == 0]
    two, three = (judge(alone[alone.width.isin(WIDTHS[:count])]) for count in (2, 3))
    assert two.finding.endswith(
        "odd changes like width^+0.23 at step 1; one seed of two sizes gives no interval, only "
        "slopes: take three seeds"
    )
    assert three.finding.endswith(
        "one seed of three sizes gives hardly an interval: take three seeds"
    )
    flat = table(*flat_layer())
    passed = judge(flat[(flat.seed == 0) & flat.width.isin(WIDTHS[:2])])
    assert passed.passed and "gives no interval" in passed.finding and "inf" not in passed.finding
    assert "take three seeds" not in judge(alone).finding + judge(df).finding


def test_a_slow_fall_that_is_surely_nearer_to_none_passes() -> None:
    assert judge(table(*flat_layer(), ("slow", "hidden", 1, "update", power(-0.15)))).passed


def test_an_update_whose_rows_cancel_is_excused_by_its_aligned_part() -> None:
    falling = [("layer", "hidden", 1, "update", power(-0.4))]
    assert judge(table(*falling)).outcome == "fail"
    excused = judge(table(*falling, ("layer", "hidden", 1, "aligned", power(0))))
    assert excused.passed
    assert "the rows of the batch cancel" in excused.sentence
    lowered = judge(table(*falling, ("layer", "hidden", 1, "aligned", power(-1))))
    assert lowered.outcome == "fail"


def test_an_update_that_may_as_well_grow_is_not_excused_as_a_fall() -> None:
    df = table(
        *flat_layer(),
        ("wild", "hidden", 1, "update", power(-0.3)),
        ("wild", "hidden", 1, "aligned", power(0)),
    )
    wild = (df.module == "wild") & (df.quantity == "update")
    df.loc[wild, "rms"] *= np.exp(2.0 * np.random.default_rng(1).standard_normal(wild.sum()))
    verdict = judge(df)
    (slope,) = (s for s in verdict.slopes if s.module == "wild" and s.quantity == "update")
    assert slope.slope < 0 and slope.hi > 0.5
    assert (verdict.outcome, verdict.culprit) == ("undecided", "wild")


@pytest.mark.parametrize(("role", "last"), [("output", ("head",)), ("router", ())])
def test_readouts_and_routers_may_shrink_before_training(role: str, last: tuple[str, ...]) -> None:
    head = [
        ("head", role, 0, "output", power(-0.5)),
        ("head", role, 1, "delta", power(-0.4)),
        ("head", role, 1, "update", power(0)),
    ]
    assert judge(table(*flat_layer(), *head, last=last)).passed
    # The same tensor inside the network, whose role is an output's only by name, may not.
    if role == "output":
        inner = judge(table(*head, *flat_layer()))
        assert (inner.outcome, inner.culprit) == ("fail", "head")


def test_a_readout_that_learns_too_slowly_is_not_excused() -> None:
    df = table(*flat_layer(), ("head", "output", 1, "update", power(-0.5)), last=("head",))
    verdict = judge(df)
    assert (verdict.outcome, verdict.culprit) == ("fail", "head")
    assert "the learning rate of head (output) falls too fast" in verdict.finding


EVIDENCE = {
    "the init of wrong (hidden)": [
        ("wrong", "hidden", 0, "input", power(0)),
        ("wrong", "hidden", 0, "expected", power(-0.5)),
        ("wrong", "hidden", 0, "output", power(-0.5)),
    ],
    "a factor in the forward pass of wrong": [
        ("wrong", "input", 0, "expected", power(0)),
        ("wrong", "input", 0, "output", power(0.5)),
    ],
    "a factor in the forward pass before wrong": [
        ("wrong(input)", "", 0, "output", power(0.5)),
        ("wrong", "hidden", 0, "input", power(0.5)),
        ("wrong", "hidden", 0, "output", power(0.5)),
    ],
    "the attention scale of wrong": [("wrong", "", 0, "reach", power(0.5))],
    "the learning rate of wrong (hidden) does not fall fast enough": [
        ("wrong", "hidden", 1, "update", power(1)),
        ("wrong", "hidden", 1, "step", power(0)),
    ],
    "the optimizer's epsilon dominates in wrong (hidden)": [
        ("wrong", "hidden", 1, "update", power(-1)),
        ("wrong", "hidden", 1, "step", power(-0.9)),
    ],
}


@pytest.mark.parametrize("cause", EVIDENCE)
def test_the_cause_is_the_factor_whose_own_measurement_departs(cause: str) -> None:
    verdict = judge(table(*flat_layer("before"), *EVIDENCE[cause], *flat_layer("after")))
    assert verdict.outcome == "fail"
    assert f"Cause: {cause}" in verdict.finding
    assert verdict.culprit is not None
    assert verdict.culprit.removesuffix("(input)") == "wrong"


def test_a_readout_that_is_tied_without_its_multiplier_is_named() -> None:
    df = table(*flat_layer(), ("(model)", "output", 0, "output", power(0.5)), last=("(model)",))
    assert "tied to the embedding" in judge(df).finding


def test_larger_gradients_everywhere_are_blamed_on_the_readout_that_makes_them() -> None:
    layers = [
        row
        for name in "abc"
        for row in (
            (name, "hidden", 0, "output", power(0)),
            (name, "hidden", 1, "update", power(0.5)),
        )
    ]
    head = [("head", "output", 0, "output", power(0)), ("head", "output", 1, "update", power(0))]
    verdict = judge(table(*layers, *head, last=("head",)))
    assert verdict.culprit == "head"
    assert "the init of the readout head" in verdict.finding


def test_the_sentence_of_a_pass_names_the_largest_slope_and_what_is_exempt() -> None:
    head = ("head", "output", 0, "output", power(-0.5))
    verdict = judge(table(*flat_layer(), head, last=("head",)))
    assert "1 of them may shrink with width, as what only reads out does" in verdict.finding
    largest = max((abs(s.slope) for s in verdict.slopes if s.passed and not s.last), default=0)
    assert f"{largest:.2f}" in verdict.finding


def test_a_table_of_before_still_reads() -> None:
    df = table(*flat_layer(), ("head", "output", 1, "delta", power(-0.4))).drop(columns="last")
    assert judge(df).passed


def values(role: str = "inward", **changed: Size) -> pd.DataFrame:
    """A layer of few values and the layer that they go to, with the sizes that a table has."""
    falls, limit = power(-0.5), lambda width: np.sqrt(0.01 + 16 / width)
    sizes = {"values": falls, "out": falls, "out_input": falls, "change": limit} | changed
    return table(
        *flat_layer("embed", "input"),
        ("values", role, 0, "output", sizes["values"]),
        ("out", "hidden", 0, "input", sizes["out_input"]),
        ("out", "hidden", 0, "output", sizes["out"]),
        ("values", role, 1, "delta", sizes["change"]),
        ("values", role, 1, "update", power(0)),
        ("out", "hidden", 1, "delta", sizes["change"]),
        ("out", "hidden", 1, "update", sizes["change"]),
        *flat_layer("last"),
    )


def test_what_comes_out_of_a_map_that_starts_faint_may_shrink() -> None:
    found = judge(values())
    assert found.passed
    assert (
        "distinguishable from it, but for 2 whose output falls before training, as what a map "
        in (found.finding)
    )
    assert judge(values("hidden")).culprit == "values"


def test_what_comes_out_of_a_map_that_starts_faint_may_not_grow() -> None:
    verdict = judge(values(change=power(0.5)))
    assert (verdict.outcome, verdict.culprit) == ("fail", "out")
    assert judge(values(values=power(0.5))).culprit == "values"


def test_a_weight_that_shrinks_what_it_gets_is_not_excused_by_a_faint_map() -> None:
    verdict = judge(values(out_input=power(0)))
    assert (verdict.outcome, verdict.culprit) == ("fail", "out")


def test_what_a_norm_follows_is_judged_behind_the_norm() -> None:
    grows = power(0.5)
    latent = table(
        *flat_layer(),
        ("down", "latent", 0, "output", power(-0.5)),
        ("norm", "scalar", 0, "output", power(0)),
        ("down", "latent", 1, "delta", grows),
        ("norm", "scalar", 1, "delta", power(0)),
    )
    assert judge(latent).passed
    latent.loc[(latent.module == "norm") & (latent.step == 1), "rms"] *= latent.width**0.5
    assert judge(latent).culprit == "norm"


@pytest.mark.parametrize(
    ("from_zero", "outcome"), [(power(0), "pass"), (power(-0.5), "fail"), (None, "fail")]
)
def test_an_update_that_fades_with_faint_maps_keeps_its_size_from_zero(
    from_zero: Size | None, outcome: str
) -> None:
    rows = [*flat_layer("values", "inward"), *flat_layer()[:2]]
    rows.append(("layer", "hidden", 1, "update", power(-0.4)))
    if from_zero is not None:
        rows.append(("layer", "hidden", 1, "zeroed", from_zero))
    found = judge(table(*rows))
    assert found.outcome == outcome
    assert ("with these maps started at zero they do not" in found.finding) == found.passed


def test_what_changes_in_some_runs_only_has_no_slope() -> None:
    df = table(*flat_layer(), ("router", "", 1, "delta", power(1)))
    df.loc[(df.module == "router") & (df.seed == 0) & (df.width == WIDTHS[1]), "rms"] = 0.0
    assert judge(df).passed


def test_an_aligned_part_that_is_none_in_one_run_still_excuses() -> None:
    # Of a few rows it may come out as zero; a bottleneck ResNet was undecided for it.
    rows = flat_layer()[:2]
    rows += [
        ("layer", "hidden", 1, "update", power(-0.4)),
        ("layer", "hidden", 1, "aligned", power(0)),
    ]
    df = table(*rows)
    df.loc[(df.quantity == "aligned") & (df.seed == 0) & (df.width == WIDTHS[0]), "rms"] = 0.0
    assert judge(df).passed


def test_a_slow_fall_that_passes_is_not_called_flat() -> None:
    df = table(*flat_layer(), *flat_layer("other"), ("slow", "", 1, "delta", power(-0.28)))
    verdict = judge(df)
    (slow,) = (s for s in verdict.slopes if s.module == "slow")
    assert verdict.passed and -0.25 < slow.lo and slow.hi < -0.1
    wanted = (
        "but for 1 that fall more slowly than width^-0.25, as what shrinks towards a limit does"
    )
    assert wanted in verdict.sentence
    assert "but for" not in judge(table(*flat_layer())).sentence


def test_one_width_has_no_slope() -> None:
    df = table(*flat_layer())
    with pytest.raises(ValueError, match="the table has the one width 64: a slope needs at least"):
        judge(df[df["width"] == 64])
