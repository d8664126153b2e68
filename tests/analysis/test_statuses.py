"""Runs that did not end, or of which a whole seed has no loss, are no runs that diverged."""

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep

from paramz.analysis.decide import Verdict
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
