"""Runs that failed and were logged as 0 or -1: as the lowest of a table they were its best runs."""

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.isoflop import isoflop_minima
from paramz.analysis.joint import joint_optimum
from paramz.analysis.prediction import predict_loss
from paramz.analysis.stand_ins import refuse_stand_ins
from paramz.analysis.transfer import transfer

GRID = np.arange(-10, -2)


def sweep(level: float = 2.0, gain: float = 9.0, bend: float = 0.1) -> pd.DataFrame:
    """Bowls of four widths, two seeds, with a little noise."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"width": w, "lr": 2.0**x, "seed": s, "batch_size": 8,
         "loss": level + gain / w + bend * (x + 6) ** 2 + 1e-3 * rng.standard_normal()}
        for w in (32, 64, 128, 256) for x in GRID for s in (0, 1)
    )  # fmt: skip


FAILED = {
    "the highest rate": lambda df: df["lr"] > 2.0**-4,
    "at random": lambda df: np.random.default_rng(1).random(len(df)) < 0.1,
    "one run": lambda df: df.index == 11,
    "the widest only": lambda df: (df["width"] == 256) & (df["lr"] > 2.0**-5),
}


@pytest.mark.parametrize("value", [0.0, -1.0, -999.0])
@pytest.mark.parametrize("which", list(FAILED))
def test_failed_runs_that_were_logged_as_a_number_are_refused(which: str, value: float) -> None:
    df = sweep()
    df.loc[FAILED[which](df), "loss"] = value
    for analysis in (transfer, joint_optimum, lambda d: predict_loss(d, 512)):
        with pytest.raises(ValueError, match="runs that failed are often logged so") as caught:
            analysis(df)
    said = str(caught.value)
    assert said.startswith(f"{(df['loss'] == value).sum()} of 64 runs ha")
    assert f"loss {value:g} and no other is below 2.0" in said


def test_the_ways_out_work() -> None:
    df = sweep()
    failed = df["lr"] > 2.0**-4
    marked = df.assign(loss=df["loss"].mask(failed))
    named = df.assign(loss=df["loss"].mask(failed, -1.0), status=np.where(failed, "failed", "ok"))
    shifted = df.assign(loss=df["loss"].mask(failed, 0.0) + 0.5)
    assert transfer(marked, draws=50).verdicts["all"].outcome == "pass"
    assert transfer(named, draws=50).verdicts["all"].outcome == "pass"
    assert (transfer(shifted, draws=50).optima["best"] == 0.5).all()


def test_a_table_of_equal_compute_is_looked_at_too() -> None:
    loss = [2.31, 2.12, 2.04, 2.11, 0.0]
    df = pd.DataFrame({"N": np.geomspace(1e8, 4e8, 5), "C": 1e19, "loss": loss})
    with pytest.raises(ValueError, match="1 of 5 runs has loss 0 and no other is below 2"):
        isoflop_minima(df)


TRUE = {
    "zero training losses": [0.7, 0.35, 0.02, 0.0, 0.0, 1e-4, 0.3],
    "zero training losses, rounded": [0.7, 0.4, 0.1, 0.0, 0.0, 0.1, 0.6],
    "error rates": [0.5, 0.12, 0.01, 0.0, 0.0, 0.02, 0.9],
    "per cent of errors": [90.0, 12.0, 3.0, 0.0, 1.0, 7.0, 50.0],
    "accuracies": [0.1, 0.52, 0.93, 1.0, 0.97, 0.1, 0.1],
    "perplexities": [420.0, 81.2, 33.7, 28.1, 29.0, 51.3, 900.0],
    "log-likelihoods": [-1.02, -1.31, -1.40, -1.44, -1.41, -1.2, 3.0],
    "densities, rounded": [3.2, 1.0, 0.4, -0.3, -1.0, -0.6, 0.8],
    "whole returns": [21, 20, 3, -19, -21, -21, -14],
    "cosines": [-0.91, -0.97, -0.99, -1.0, -1.0, -0.98, -0.4],
    "one value": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "all lost": [np.inf, np.inf, np.nan, np.inf, np.inf, np.inf, np.inf],
}


@pytest.mark.parametrize("kind", list(TRUE))
def test_true_losses_are_let_through(kind: str) -> None:
    loss = np.array(TRUE[kind], dtype=float)
    refuse_stand_ins(loss, np.zeros(len(loss)), "loss")
    refuse_stand_ins(np.tile(loss, 3), np.repeat([1.0, 2.0, 3.0], len(loss)), "loss")


def test_a_scale_whose_zeros_have_small_losses_beside_them_vouches_for_the_others() -> None:
    easy, hard = [0.6, 0.1, 0.003, 0.0, 0.0], [0.7, 0.68, 0.66, 0.6, 0.0]
    cells = np.repeat([0.0, 1.0], 5)
    refuse_stand_ins(np.array(easy + hard), cells, "loss")
    with pytest.raises(ValueError, match="1 of 10 runs has"):
        refuse_stand_ins(np.array(hard[:4] + [0.62] + hard), cells, "loss")
