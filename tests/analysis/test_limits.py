"""What a fit must say of designs and parameters that it cannot trust."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.forms import FORMS, custom, sum_of_powers
from paramz.analysis.law import ScalingLaw, largest
from paramz.analysis.lawfit import LawWarning
from paramz.analysis.limits import rises
from paramz.analysis.saved import load_law


def runs(ratio: np.ndarray | list[float], rows: int = 40, seed: int = 0) -> pd.DataFrame:
    """Chinchilla's law on 40 sizes with these numbers of tokens per parameter."""
    n = np.geomspace(1e7, 1e10, rows)
    df = pd.DataFrame({"N": n, "D": n * np.resize(ratio, rows)})
    df["loss"] = 1.8 + 480 / df["N"] ** 0.35 + 2100 / df["D"] ** 0.37
    df["loss"] *= np.exp(0.003 * np.random.default_rng(seed).standard_normal(rows))
    return df


def told(form: str, df: pd.DataFrame) -> tuple[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        fit = ScalingLaw(form).fit(df)
    return " ".join(fit.warnings), fit


@pytest.mark.parametrize("ratio", [[20.0], [18.0, 22.0, 20.0]])
@pytest.mark.parametrize("form", ["chinchilla", "kaplan"])
def test_sizes_that_move_together_are_named_and_no_compute_is_divided(
    form: str, ratio: list[float]
) -> None:
    text, fit = told(form, runs(ratio))
    assert "N and D move together" in text and "allocation" in text
    with pytest.raises(ValueError, match="N and D move together"):
        fit.optimal_allocation(1e22)


def test_a_power_between_the_sizes_counts_as_together_and_a_cross_does_not() -> None:
    df = runs([1.0]).assign(D=lambda d: 1e3 * d["N"] ** 0.8)
    df["loss"] = 1.8 + 480 / df["N"] ** 0.35 + 2100 / df["D"] ** 0.37
    assert "move together" in told("chinchilla", df)[0]
    assert "move together" in told("chinchilla", runs([15.0, 25.0]))[0]
    text, fit = told("chinchilla", runs([2.0, 20.0, 200.0, 6.0, 60.0]))
    assert "together" not in text
    best = fit.optimal_allocation(1e22).iloc[0]
    truth = ((0.35 * 480) / (0.37 * 2100) * (1e22 / 6) ** 0.37) ** (1 / 0.72)
    assert best["N_lo"] <= truth <= best["N_hi"]


def test_an_allocation_at_an_edge_is_refused() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0])
    df["loss"] = 1.8 + 2100 / df["D"] ** 0.37 * (1 + 1e-3 * np.log(df["N"]))  # N does harm
    _, fit = told("chinchilla", df)
    with pytest.raises(ValueError, match="towards ever smaller N at the cost of D"):
        fit.optimal_allocation(1e22)


def test_a_hyperparameter_has_no_optimal_allocation_and_a_wide_delta() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0]).assign(loss=lambda d: 1.8 * d["N"] ** -0.7)
    fit = ScalingLaw("hp").fit(df)
    assert fit.delta == 1.0
    with pytest.raises(ValueError, match="'hp' is one of a hyperparameter"):
        fit.optimal_allocation(1e22)


def test_a_response_on_a_half_octave_grid_is_fitted_with_delta_one() -> None:
    c = np.repeat(np.geomspace(1e18, 1e21, 7), 2)
    best = 2.0 ** (np.round(2 * np.log2(0.1 * c**0.5)) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        fit = ScalingLaw("pure_power").fit(pd.DataFrame({"C": c, "N": best}), loss="N", C="C")
        losses = ScalingLaw("power").fit(runs([20.0]), N="N")
    assert fit.delta == 1.0 and losses.delta == 1e-3
    assert fit.params["alpha"] == pytest.approx(-0.5, abs=0.02)


def test_exponents_of_the_wrong_sign_are_named() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0])
    df["loss"] = 1.8 + 0.01 * df["N"] ** 0.1 + 2100 / df["D"] ** 0.37
    assert "the fitted loss rises with N" in told("chinchilla", df)[0]


def test_a_rise_is_told_from_noise() -> None:
    x = np.array([32.0, 64, 128, 256, 512, 1024, 2048, 4096])
    falling = 2 + 9 / x
    assert rises(x, falling, "width") is None
    bent = falling + 0.1 * np.maximum(0, np.log2(x / 256))
    assert "beyond 256" in (rises(x, bent, "width") or "")
    rngs = [np.random.default_rng(seed) for seed in range(40)]
    noisy = [rises(x, falling + 0.01 * rng.standard_normal(8), "width") for rng in rngs]
    assert sum(text is not None for text in noisy) <= 2


def test_a_law_of_ones_own_is_found_from_plain_numbers_or_its_open_parameters_are_named() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0])
    start = {"E": 1.0, "A": 1.0, "B": 1.0, "a": 0.5, "b": 0.5}
    form = custom(lambda N, D, E, A, B, a, b: E + A * N**-a + B * D**-b, ("N", "D"), start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        fit = ScalingLaw(form).fit(df)
        best = ScalingLaw("chinchilla").fit(df)
    assert fit.objective == pytest.approx(best.objective, rel=1e-4)
    start = {"E": 1.0, "F": 1.0, "A": 9.0, "a": 1.0}
    twice = custom(lambda N, E, F, A, a: E + F + A * N**-a, ("N",), start)
    with pytest.warns(LawWarning, match="do not determine E, F: the law stays the same"):
        ScalingLaw(twice).fit(df, N="N")


def test_many_exponents_start_from_a_coarser_grid_and_a_large_one_is_refused() -> None:
    terms = {"E": {}, "A": {"a": "p"}, "B": {"b": "q"}, "C": {"c": "r"}, "F": {"d": "s"}}
    form = sum_of_powers("four", "", tuple("abcd"), terms)
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(4, 30))
    assert len(form.starts(logs, rng.normal(size=30))) <= 8
    with pytest.raises(ValueError, match=r"24\^4 = 331,776 starts; give at most 11 values"):
        sum_of_powers("four", "", tuple("abcd"), terms, grid=np.linspace(0.1, 1, 24))
    with pytest.raises(ValueError, match="has no exponent"):
        sum_of_powers("none", "", ("a",), {"E": {}})


@pytest.mark.parametrize(
    ("fixed", "shared", "same"),
    [
        ({"E": 1.8}, {}, None),
        ({"A": 480.0, "beta": 0.37}, {}, None),
        ({}, {"beta": "alpha"}, "tied"),
    ],
)
def test_parameters_are_fixed_and_shared(fixed, shared, same) -> None:  # type: ignore[no-untyped-def]
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0])
    fit = ScalingLaw("chinchilla", fixed=fixed, shared=shared).fit(df)
    for name, value in fixed.items():
        assert fit.params[name] == pytest.approx(value, rel=1e-9)
        assert fit.conf_int().loc[name].tolist() == pytest.approx([value, value])
    for name, other in shared.items():
        assert fit.params[name] == pytest.approx(fit.params[other])
    if same:
        assert fit.objective == pytest.approx(ScalingLaw(same).fit(df).objective, rel=1e-6)
    assert "was given" in fit.summary()


def test_parameters_that_cannot_be_held_are_named() -> None:
    df = runs([2.0, 20.0, 200.0])
    for form, fixed, text in (
        ("chinchilla", {"gamma": 1.0}, "has the parameters E, A, B, alpha, beta, not gamma"),
        ("chinchilla", {"E": -1.0}, "E of 'chinchilla' is positive"),
        ("kaplan", {"alpha_N": 0.1}, "alpha_N of 'kaplan' cannot be fixed or shared"),
        ("hp", {"c": 1.0, "p": 1.0, "q": 1.0}, "nothing is left to fit"),
    ):
        with pytest.raises(ValueError, match=text):
            ScalingLaw(form, fixed=fixed).fit(df)


def test_weights_count_rows_and_residuals_may_be_those_of_the_loss() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0])
    twice = pd.concat([df, df.iloc[:10]], ignore_index=True)
    weighted = df.assign(w=np.where(np.arange(40) < 10, 2.0, 1.0))
    law = ScalingLaw("chinchilla")
    np.testing.assert_allclose(
        law.fit(weighted, weights="w").params, law.fit(twice).params, rtol=1e-5
    )
    with pytest.warns(LawWarning, match="no residual exceeds delta = 10"):
        plain = law.fit(df, residuals="loss", delta=10.0)
    p = plain.params
    fitted = p["E"] + p["A"] / df["N"] ** p["alpha"] + p["B"] / df["D"] ** p["beta"]
    least = 0.5 * ((df["loss"] - fitted) ** 2).sum()
    assert plain.objective == pytest.approx(least, rel=1e-6)
    ahead = plain.predict({"N": [1e9], "D": [1e11]}).iloc[0]
    assert ahead["lo"] < ahead["mean"] < ahead["hi"] and 1.8 < ahead["mean"] < 2.5
    with pytest.raises(ValueError, match="no residuals 'both': choose 'log' or 'loss'"):
        law.fit(df, residuals="both")


def test_a_saved_fit_predicts_the_same_and_holds_its_rows() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0]).assign(w=1.0)
    law = ScalingLaw("chinchilla", fixed={"E": 1.8})
    fit = law.fit(df, weights="w", holdout=largest("N", 3))
    again = load_law(fit.to_json())
    new = {"N": [1e9, 3e10], "D": [1e11, 1e12]}
    pd.testing.assert_frame_equal(again.predict(new), fit.predict(new))
    assert again.summary() == fit.summary()
    assert json.loads(again.to_json()) == json.loads(fit.to_json())
    own = custom(lambda N, A, a: A * N**-a, ("N",), {"A": 9.0, "a": 0.1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        text = ScalingLaw(own).fit(df, N="N").to_json()
    with pytest.raises(ValueError, match="is none of power, pure_power.*give the form"):
        load_law(text)
    with pytest.raises(ValueError, match="holds the parameters A, a, but the form"):
        load_law(text, FORMS["power"])
    assert list(load_law(text, own).params.index) == ["A", "a"]


def test_intervals_beyond_the_rows_are_widened_by_the_errors_of_held_out_ones() -> None:
    x = np.geomspace(1e1, 1e5, 40)
    scatter = np.exp(0.003 * np.random.default_rng(0).standard_normal(40))
    broken = 1.0 + 20 * x**-0.15 * (1 + (x / 3e3) ** 3) ** -0.1
    with pytest.warns(LawWarning, match="E fell to its bound"):
        wrong = ScalingLaw("power").fit(pd.DataFrame({"x": x, "loss": broken * scatter}), x="x")
    true = pd.DataFrame({"x": x, "loss": (1 + 20 / x**0.2) * scatter})
    right = ScalingLaw("power").fit(true, x="x")
    far = np.array([0.0, 1.0, 3.0])
    assert (np.diff(wrong.extrapolation.factor(far)) > 0).all()
    assert wrong.extrapolation.factor(far)[0] == 1.0
    assert wrong.extrapolation.factor(far)[2] > 2 > right.extrapolation.factor(far)[2]
    assert set(wrong.extrapolation.trials) == {"order", "cut", "rows", "distance", "excess"}


def test_a_setting_that_the_law_does_not_know_and_the_loss_follows_is_named() -> None:
    df = runs([2.0, 20.0, 200.0, 6.0, 60.0]).assign(seed=range(40))
    text, _ = told("chinchilla", df)
    assert "residuals follow" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        alone = ScalingLaw("power").fit(df, x="N")
    assert "the residuals follow D (rank correlation -" in " ".join(alone.warnings)


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), 1e-300])
def test_a_delta_that_separates_no_residuals_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must be"):
        ScalingLaw("chinchilla").fit(runs([2.0, 20.0, 200.0]), delta=delta)
