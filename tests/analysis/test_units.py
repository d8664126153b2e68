"""Units that are not what a law takes them for, floors above losses, and logs that begin late."""

import warnings

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.collapse import collapse
from paramz.analysis.isoflop import isoflop_minima
from paramz.analysis.law import ScalingLaw
from paramz.analysis.lawfit import LawWarning
from paramz.analysis.prediction import predict_loss


def runs() -> pd.DataFrame:
    """Chinchilla's law with a little noise, N from 1e7 to 1e9."""
    rng = np.random.default_rng(0)
    size = np.repeat(np.geomspace(1e7, 1e9, 6), 4)
    df = pd.DataFrame({"N": size, "D": size * np.tile([5.0, 10.0, 20.0, 80.0], 6)})
    df["loss"] = 1.8 + 480 / df["N"] ** 0.35 + 2100 / df["D"] ** 0.37
    return df.assign(loss=df["loss"] * np.exp(0.002 * rng.standard_normal(len(df))))


@pytest.mark.parametrize("unit", [{"D": 1e6}, {"N": 1e6}, {"N": 1e6, "D": 1e9}])
def test_a_compute_in_other_units_than_the_rows_is_told_of(unit: dict[str, float]) -> None:
    """Tokens in millions made the best model a thousand times too large without a word."""
    df = runs()
    whole = ScalingLaw("chinchilla").fit(df)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LawWarning)
        best = whole.optimal_allocation(1e21, level=None).iloc[0]
    per = 6.0 * np.prod(list(unit.values()))
    fit = ScalingLaw("chinchilla").fit(df.assign(**{k: df[k] / u for k, u in unit.items()}))
    with pytest.warns(LawWarning, match="If N or D is counted in millions or billions, give whole"):
        wrong = fit.optimal_allocation(1e21, level=None).iloc[0]
    assert wrong["N"] * unit.get("N", 1.0) > 10 * best["N"]
    right = fit.optimal_allocation(1e21, per=per, level=None).iloc[0]
    assert right["N"] * unit.get("N", 1.0) == pytest.approx(best["N"], rel=1e-3)


def test_sizes_in_millions_are_told_of_beside_budgets_in_flop() -> None:
    n = np.geomspace(1e8, 4e8, 5)
    df = pd.DataFrame({"N": n, "C": 1e19, "loss": 2.01 + 0.1 * np.log(n / 2e8) ** 2})
    with pytest.warns(UserWarning, match=r"D = C / \(6 N\) come to 4.17e\+13 for each of N: if N"):
        isoflop_minima(df.assign(N=n / 1e6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isoflop_minima(df)["D"].iloc[0] == pytest.approx(1e19 / 6 / 2e8, rel=1e-3)
        isoflop_minima(df.assign(N=n / 1e6), per=6e12)


def test_a_floor_that_was_given_above_the_losses_is_told_of() -> None:
    df = pd.DataFrame({"width": 2.0 ** np.arange(5, 13)})
    df["loss"] = 2 + 9 / df["width"] ** 0.5
    with pytest.warns(LawWarning, match="E = 2.3 was given, and the lowest loss is 2.14"):
        ScalingLaw("power", fixed={"E": 2.3}).fit(df, width="width")
    assert not ScalingLaw("power", fixed={"E": 2.0}).fit(df, width="width").warnings


def test_checkpoints_without_the_name_of_their_run_are_told_of() -> None:
    df = runs()
    last = df.assign(step=1000)
    early = df.assign(step=300, loss=df["loss"] * 1.1)
    with pytest.warns(LawWarning, match=r"the residuals follow step \(rank correlation -0"):
        ScalingLaw("chinchilla").fit(pd.concat([last, early], ignore_index=True))


def test_curves_that_are_logged_from_late_on_are_refused() -> None:
    """Before its first row a curve counted as flat."""
    df = pd.DataFrame(
        {"width": w, "step": t, "loss": 1.5 + 40 / w * t**-0.5}
        for w in (32, 64, 128) for t in range(1, 101)
    )  # fmt: skip
    assert collapse(df[df["step"] >= 20]).spread < 0.01
    with pytest.raises(ValueError, match="a run is logged from step 40 of 100 on, and curves are"):
        collapse(df[(df["step"] >= 40) | (df["width"] > 32)])


@pytest.mark.parametrize(("count", "told"), [(5, True), (6, True), (7, False)])
def test_too_few_widths_to_test_a_law_are_told_of_where_it_predicts(count: int, told: bool) -> None:
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"width": 32 * 2 ** np.arange(count), "lr": 0.01})
    df["loss"] = 2 + 9 / df["width"] ** 0.5 + 1e-3 * rng.standard_normal(count)
    text = f"{count} values of width are too few to refit the law without the largest: the "
    (ahead,) = predict_loss(df, 2 * df["width"].max())
    (within,) = predict_loss(df, 48)
    assert any(text in w for w in ahead.warnings) is told
    assert not any(text in w for w in within.warnings)
