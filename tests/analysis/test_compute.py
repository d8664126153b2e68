"""IsoFLOP minima, critical batch sizes and losses over a schedule, against known answers."""

import warnings

import numpy as np
import pandas as pd
import pytest

from paramz import analysis as pa


def test_isoflop_minima_are_a_table_with_flags() -> None:
    n = np.geomspace(1e7, 1e9, 9)
    rows = [
        {"N": size, "C": c, "loss": 2 + 0.05 * np.log(size / best) ** 2}
        for c, best in ((1e18, 1e8), (1e19, 3e8), (1e20, 1e10))
        for size in n
    ]
    found = pa.isoflop_minima(pd.DataFrame(rows))
    assert found["flag"].tolist() == ["", "", "edge"]
    np.testing.assert_allclose(found["N"].iloc[:2], [1e8, 3e8], rtol=1e-6)
    np.testing.assert_allclose(6 * found["N"] * found["D"], found["C"])
    assert (found["used"] < found["runs"]).all() and (found["low"] < found["N"]).all()
    noisy = pd.DataFrame(rows).assign(
        loss=lambda d: d["loss"] + 0.003 * np.random.default_rng(0).standard_normal(len(d))
    )
    first = pa.isoflop_minima(noisy).iloc[0]
    assert first["N_lo"] < 1e8 < first["N_hi"]
    with pytest.raises(ValueError, match="the most is 2"):
        pa.isoflop_minima(pd.DataFrame(rows[:2]))


def batch_curves(critical: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    sizes = (32, 64, 128, 256, 512, 1024, 2048)
    rows = [
        {"batch": b, "lr": lr, "step": t,
         "loss": 2 + lr * np.sqrt((1 + critical / b) * 50 / t) * np.exp(0.005 * rng.normal())}
        for b in sizes for lr in (1.0, 1.3) for t in range(1, 9000, 20)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_critical_batch_size_trades_steps_for_examples() -> None:
    found = pa.critical_batch(batch_curves(512), 2.4, runs="lr")
    assert found.critical == pytest.approx(512, rel=0.1)
    assert found.lo < 512 < found.hi and not found.warnings
    assert found.steps == pytest.approx(312, rel=0.05)
    assert found.examples == pytest.approx(found.critical * found.steps)
    assert "critical batch size at loss 2.4" in found.sentence
    small = pa.critical_batch(batch_curves(8), 2.4, runs="lr")
    assert any("outside the batch sizes run, 32 to 2048: run smaller" in w for w in small.warnings)
    with pytest.raises(ValueError, match="needs 4 batch sizes that reach the loss 2, you have 0"):
        pa.critical_batch(batch_curves(512), 2.0, runs="lr")


def test_a_loss_reached_at_the_first_log_is_no_number_of_steps() -> None:
    """With a log every 50 steps, half the critical batch size was reported."""
    rows = [
        {"batch": b, "step": t, "loss": 2 + (1 + 512 / b) / t}
        for b in (32, 64, 128, 256, 1024) for t in range(50, 900, 50)
    ]  # fmt: skip
    df = pd.DataFrame(rows)
    found = pa.critical_batch(df, 2.05)
    assert found.points["batch"].tolist() == [32, 64, 128, 256]
    assert any(
        "batch sizes 1024 lie below the loss 2.05 at their first log" in w for w in found.warnings
    )
    with pytest.raises(ValueError, match="first log: 128, 256, 1024: .* or choose a lower loss"):
        pa.critical_batch(df[df["step"] > 60], 2.05)


def test_noise_that_reaches_a_loss_first_is_told_of() -> None:
    rng, df = np.random.default_rng(0), batch_curves(512)
    noisy = df.assign(loss=df["loss"] + 0.05 * rng.standard_normal(len(df)))
    found = pa.critical_batch(noisy, 2.4, runs="lr")
    assert any("comes back above 2.4 long after" in w for w in found.warnings)


def test_computes_with_few_sizes_are_named_and_seeds_are_averaged() -> None:
    n = np.geomspace(1e8, 4e8, 5)
    loss = 2.0 + 0.1 * np.log(n / 2e8) ** 2
    full = pd.DataFrame({"N": n, "C": 1e19, "loss": loss})
    luck = np.where(n == n[0], 0.06, 0.0)
    lucky = pd.concat([full.assign(loss=loss - luck), full.assign(loss=loss + luck)])
    assert pa.isoflop_minima(lucky)["flag"].tolist() == [""]  # the lowest single run is the first
    with pytest.warns(UserWarning, match=r"three values of 'N': C = 1e\+18 \(2\)"):
        pa.isoflop_minima(pd.concat([full, full.iloc[:2].assign(C=1e18)]))


STEPS = np.arange(1001)
PEAK, WARM = 3e-4, 50


def warmed(rates: np.ndarray) -> np.ndarray:
    return np.where(STEPS < WARM, PEAK * (STEPS + 1) / WARM, rates)


COSINE = warmed(PEAK * (0.1 + 0.45 * (1 + np.cos(np.pi * (STEPS - WARM) / (1000 - WARM)))))
WSD = warmed(np.where(STEPS < 700, PEAK, PEAK * 0.1 ** ((STEPS - 700) / 300)))
CONSTANT = warmed(np.full(1001, PEAK))


def multi_power(rates: np.ndarray) -> pd.DataFrame:
    """Luo et al.'s law, term by term as they write it, every 20 steps after the warm-up."""
    total = np.cumsum(rates)
    rows = []
    for t in range(WARM, 1001, 20):
        k = np.arange(WARM + 1, t + 1)
        x = rates[k] ** -0.6 * (total[t] - total[k - 1])
        gain = np.sum((rates[k - 1] - rates[k]) * (1 - (1 + 2.1 * x) ** -0.6))
        loss = 2.6 + 0.6 * total[t] ** -0.45 - 420 * gain
        rows.append({"step": t, "lr": rates[t], "loss": loss})
    before = pd.DataFrame({"step": STEPS[:WARM], "lr": rates[:WARM], "loss": 9.0})
    return pd.concat([before.iloc[:-1], pd.DataFrame(rows)], ignore_index=True)


def test_a_law_of_one_schedule_predicts_another() -> None:
    fit = pa.fit_schedule(multi_power(COSINE))
    assert fit.scatter < 2e-4
    true = multi_power(WSD)
    ahead = fit.predict(pd.DataFrame({"step": STEPS, "lr": WSD})).set_index("step")
    true = true[true["step"] >= WARM].set_index("step")
    error = ahead["loss"].loc[true.index] / true["loss"] - 1
    assert error.abs().max() < 0.005
    # Schedules differ by more than that, so this is no accident.
    flat = fit.predict(pd.DataFrame({"step": STEPS, "lr": CONSTANT}))["loss"].iloc[-1]
    assert abs(flat / true["loss"].iloc[-1] - 1) > 0.006


def test_a_rate_that_rises_again_gives_back_what_its_drops_gained() -> None:
    """The sum of the law has signs: one that leaves rises out is off by 1.6 % here."""
    wave = warmed(PEAK * (0.55 + 0.45 * np.cos(2 * np.pi * (STEPS - WARM) / 400)))
    fit = pa.fit_schedule(
        pd.concat([multi_power(wave).assign(run=0), multi_power(WSD).assign(run=1)])
    )
    assert fit.scatter < 1e-3
    true = multi_power(COSINE).set_index("step").loc[WARM:]["loss"]
    ahead = fit.predict(pd.DataFrame({"step": STEPS, "lr": COSINE})).set_index("step")["loss"]
    assert (ahead.loc[true.index] / true - 1).abs().max() < 0.005


def test_a_schedule_law_names_the_parameters_that_noisy_curves_leave_open() -> None:
    assert not pa.fit_schedule(multi_power(COSINE)).warnings
    noisy = multi_power(COSINE)
    noisy["loss"] *= np.exp(1e-3 * np.random.default_rng(0).standard_normal(len(noisy)))
    (told,) = (w for w in pa.fit_schedule(noisy).warnings if "open" in w)
    assert "leave B, C, beta, gamma open" in told and "add a run whose rate falls" in told


def test_schedules_that_show_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="'lr' never falls"):
        pa.fit_schedule(multi_power(CONSTANT))
    with pytest.raises(ValueError, match="needs 14 logged losses after the warm-up, you have 6"):
        table = multi_power(COSINE)
        pa.fit_schedule(table.iloc[[*range(WARM - 1), *range(-5, 0)]])


def test_the_law_of_repeated_tokens_gives_the_losses_that_its_authors_print() -> None:
    """The parameters and two losses of the README of huggingface/datablations."""
    from paramz.analysis.forms.repeated import REPEATED

    a, b, e, alpha, r_d, r_n = 6.255414, 7.3049974, 0.6254804, 0.3526596, 15.387756, 5.309743
    theta = np.array([[e, a, b, alpha, alpha, np.log(r_d), np.log(r_n)]])
    runs = np.log([[6.34e9, 8.67e9], [242e9, 178e9], [25e9, 25e9]])
    found = np.exp(REPEATED.evaluate(theta, runs)[0][0])
    np.testing.assert_allclose(found, [2.2256440889984477, 2.2269634075087867], rtol=1e-12)


def test_repeated_tokens_and_batches_have_laws() -> None:
    from benchmarks.coverage import LAW, TRUTH, design

    for name in ("repeated", "batch"):
        df = design(name, 200, np.random.default_rng(1))
        df["loss"] = LAW[name](**{c: df[c].to_numpy() for c in df}, **TRUTH[name])
        df["loss"] *= np.exp(0.002 * np.random.default_rng(0).standard_normal(200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pa.LawWarning)
            fit = pa.ScalingLaw(name).fit(df)
        for param, value in TRUTH[name].items():
            assert fit.params[param] == pytest.approx(value, rel=0.25), (name, param)
