"""Runs that did not end, or of which a whole seed has no loss, are no runs that diverged."""

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep

from paramz.analysis.collapse import collapse
from paramz.analysis.decide import Verdict
from paramz.analysis.isoflop import isoflop_minima
from paramz.analysis.law import ScalingLaw
from paramz.analysis.lawfit import LawWarning
from paramz.analysis.prediction import predict_loss
from paramz.analysis.transfer import transfer


def verdict(df: pd.DataFrame) -> Verdict:
    (found,) = transfer(df).verdicts.values()
    return found


def without(df: pd.DataFrame, where: pd.Series, status: str) -> pd.DataFrame:
    """The table with runs that have no loss and another status."""
    return df.assign(loss=df["loss"].mask(where), status=df["status"].mask(where, status))


@pytest.mark.parametrize("status", ["running", "PENDING", "queued", "crashed", "Error", "killed"])
def test_runs_that_did_not_end_are_left_out(status: str) -> None:
    df = made_up_sweep({"mup": 0.0})
    largest = df["width"] == df["width"].max()
    found = verdict(without(df, largest, status))
    assert found.outcome == "pass" and "diverged" not in found.text
    assert found.text == verdict(df[~largest]).text


@pytest.mark.parametrize("status", ["TIMEOUT", "NODE_FAIL", "CANCELLED by 1000", "OUT_OF_ME+"])
def test_runs_that_a_cluster_ended_did_not_diverge_and_are_counted(status: str) -> None:
    """Words of Slurm that nobody knew: without a loss they were a cliff, with one a measurement."""
    df = made_up_sweep({"mup": 0.0})
    high = (df["lr"] > 0.03) & (df["status"] == "ok")
    for cut in (without(df, high, status), df.assign(status=df["status"].mask(high, status))):
        found = transfer(cut, draws=50)
        assert (
            found.curves["loss"].tolist() == transfer(df[~high], draws=50).curves["loss"].tolist()
        )
        assert found.notes == [
            f"{high.sum()} of {len(df)} runs are left out for their status: {high.sum()} failed"
        ]


@pytest.mark.parametrize("status", [0, True, "best", "done?"])
def test_a_status_that_nobody_knows_is_refused(status: object) -> None:
    df = made_up_sweep({"mup": 0.0})
    odd = df.assign(status=df["status"].astype(object).where(df.index != 3, status))
    with pytest.raises(ValueError, match=r"1 of \d+ rows hold .*, the first of them row 3: write"):
        transfer(odd)


def test_what_others_call_runs_that_ended_or_were_pruned() -> None:
    df = made_up_sweep({"mup": 0.0})
    assert verdict(df.assign(status="COMPLETE")).text == verdict(df.assign(status="ok")).text
    high = df["lr"] == df["lr"].max()
    pruned, stopped = (transfer(without(df, high, word)) for word in ("PRUNED", "stopped"))
    assert pruned.notes == stopped.notes and "successive halving" in pruned.notes[0]


def test_a_seed_without_any_loss_leaves_it_open_and_is_named() -> None:
    """It failed the sweep, or "every run diverged" stopped the analysis of all groups."""
    df = made_up_sweep({"mup": 0.0, "other": 0.0})
    lost = (df["width"] == df["width"].max()) & (df["seed"] == 1) & (df["parametrization"] == "mup")
    found = transfer(without(df, lost, "ok")).verdicts
    assert (found["mup"].outcome, found["other"].outcome) == ("undecided", "pass")
    assert "seed 1 has no loss at any of them" in found["mup"].text
    assert "run the seeds without a loss at width" in found["mup"].to_decide[0]


def test_a_scale_where_every_value_diverged_with_some_seed_fails() -> None:
    df = made_up_sweep({"mup": 0.0})
    odd = df["lr"].rank(method="dense") % 2 == df["seed"] % 2
    found = verdict(without(df, odd & (df["width"] == df["width"].max()), "diverged"))
    assert found.outcome == "fail" and "a seed diverged at every value of lr" in found.text


def test_runs_that_differ_in_steps_are_told_of() -> None:
    df = made_up_sweep({"mup": 0.0})
    assert "differ in" not in verdict(df.assign(steps=1000)).text
    mixed = verdict(df.assign(steps=10 * df["width"], batch_size=np.where(df["width"] < 99, 8, 16)))
    low, high = 10 * df["width"].min(), 10 * df["width"].max()
    assert f"Runs differ in steps ({low} to {high}) and batch_size (8 to 16)" in mixed.text


def test_laws_are_fitted_to_runs_that_ended_well() -> None:
    """Runs that had diverged, or went on, counted with the loss that they had last."""
    n = np.repeat(np.geomspace(1e7, 3e9, 8), 5)
    df = pd.DataFrame({"N": n, "D": n * np.tile([3.0, 8, 20, 50, 120], 8)})
    df["loss"] = 1.8 + 480 / df["N"] ** 0.35 + 2100 / df["D"] ** 0.37
    large = df["N"] > 1e9
    odd = df.assign(loss=df["loss"].mask(large, 7.0), status=np.where(large, "diverged", "ok"))
    with pytest.warns(LawWarning, match=f"{large.sum()} of 40 runs are left out .* diverged"):
        fit = ScalingLaw("chinchilla").fit(odd)
    assert fit.nobs == (~large).sum() and abs(fit.params["E"] - 1.8) < 0.01


def test_minima_at_equal_compute_are_of_runs_that_ended_well() -> None:
    n = np.geomspace(1e8, 8e8, 7)
    df = pd.DataFrame({"N": n, "C": 1e19, "loss": 2.0 + 0.1 * np.log(n / 3e8) ** 2})
    odd = pd.concat([df, df.iloc[[6]].assign(N=4.2e8, loss=1.0)], ignore_index=True)
    with pytest.warns(UserWarning, match="1 of 8 runs is left out for its status: 1 unfinished"):
        found = isoflop_minima(odd.assign(status=["ok"] * 7 + ["running"]))
    assert found["N"].iloc[0] == pytest.approx(3e8)
    with pytest.warns(UserWarning, match="1 of 8 runs left out for want of a finite loss"):
        isoflop_minima(odd.assign(loss=[*df["loss"], np.nan]))


def test_a_curve_that_was_cut_short_is_no_curve_of_its_scale() -> None:
    """Its end, by which it is divided, is not the end of training."""
    rows = [
        {"width": w, "seed": s, "step": t, "loss": 1.5 + (40 + s) / w * t**-0.5, "status": "ok"}
        for w in (32, 64, 128)
        for s in (0, 1)
        for t in range(1, 101)
    ]
    df = pd.DataFrame(rows)
    short = df[(df["width"] < 128) | (df["seed"] < 1) | (df["step"] <= 50)]
    with pytest.raises(ValueError, match="runs of width 128 end at step 50 and 100"):
        collapse(short)
    cut = (df["width"] == 128) & (df["seed"] == 1)
    with pytest.raises(ValueError, match="100 rows are of runs that did not end well"):
        collapse(df.assign(status=np.where(cut, "killed", "ok")))
    as_texts = df.assign(step=df["step"].astype(str)).sample(frac=1, random_state=0)
    assert collapse(as_texts).spread == collapse(df).spread


def test_a_prediction_says_what_was_left_out_and_what_runs_differ_in() -> None:
    widths = np.array([32, 64, 128, 256, 512, 1024, 2048])
    df = pd.DataFrame({"width": widths, "lr": 0.01, "loss": 2 + 3 / widths**0.5})
    df = df.assign(status=np.where(widths == 256, "failed", "ok"), steps=10 * widths)
    (found,) = predict_loss(df, 4096)
    assert "1 of 7 runs is left out for its status: 1 failed" in found.warnings
    assert any(text.startswith("runs differ in steps (320 to 20480)") for text in found.warnings)
