import numpy as np
import pandas as pd
import pytest

import paramz.analysis as pa


def grid(batches: range, lrs: range, noise: float = 0.003) -> pd.DataFrame:
    """Best at lr 2^-5 and batch 2^6; the best lr grows with the root of the batch."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"width": w, "lr": 2.0**x, "batch_size": 2.0**b, "seed": s,
         "loss": 2 + 9 / w + 0.02 * (x + 8 - b / 2) ** 2 + 0.01 * (b - 6) ** 2
         + noise * rng.standard_normal()}
        for w in (64, 128) for x in lrs for b in batches for s in (0, 1)
    )  # fmt: skip


def test_the_joint_optimum_lies_in_its_intervals() -> None:
    found = pa.joint_optimum(grid(range(4, 9), range(-8, -2)))
    assert (found["flag"] == "").all()
    assert found["hp_lo"].lt(2.0**-5).all() and found["hp_hi"].gt(2.0**-5).all()
    assert found["batch_lo"].lt(64).all() and found["batch_hi"].gt(64).all()
    assert found["slope"].to_numpy() == pytest.approx(0.5, abs=0.1)


def test_a_best_batch_outside_those_that_ran_is_flagged() -> None:
    assert (pa.joint_optimum(grid(range(1, 5), range(-10, -3)))["flag"] == "edge").all()


def test_two_batches_are_too_few() -> None:
    assert (pa.joint_optimum(grid(range(5, 7), range(-8, -2)))["flag"] == "too few").all()


def test_runs_that_diverged_are_left_out() -> None:
    df = grid(range(4, 9), range(-8, -2))
    df["status"] = np.where(df["lr"] > 2.0**-4, "diverged", "ok")
    assert pa.joint_optimum(df)["hp"].to_numpy() == pytest.approx(2.0**-5, rel=0.2)


def test_a_scale_where_all_diverged_has_a_row() -> None:
    df = grid(range(4, 9), range(-8, -2))
    lost = df["width"] == df["width"].max()
    found = pa.joint_optimum(df.assign(loss=df["loss"].where(~lost)))
    assert found["flag"].tolist()[-1] == "diverged" and len(found) == df["width"].nunique()


def test_the_interval_knows_that_bowls_may_be_steeper_on_one_side() -> None:
    """A quadratic alone put it half an octave off, and its interval never held the truth."""
    rng, held = np.random.default_rng(0), []
    for _ in range(10):
        df = grid(range(4, 9), range(-9, -1), noise=0.0)
        away = np.log2(df["lr"]) + 8 - np.log2(df["batch_size"]) / 2
        steep = df["loss"] + np.where(away > 0, 0.04, 0.0) * away**2
        found = pa.joint_optimum(df.assign(loss=steep + 0.004 * rng.standard_normal(len(df))))
        held += (found["hp_lo"].lt(2.0**-5) & found["hp_hi"].gt(2.0**-5)).tolist()
    assert np.mean(held) >= 0.8


def test_an_interval_without_ends_is_flagged() -> None:
    df = grid(range(4, 9), range(-8, -2))
    flat = df["loss"] - 0.01 * (np.log2(df["batch_size"]) - 6) ** 2
    found = pa.joint_optimum(df.assign(loss=flat))
    wide = np.isinf(found["hp_hi"])
    assert (
        found["flag"].isin(["open", "edge", "saddle"]).all() and wide[found["flag"] == "open"].all()
    )
    assert (found["flag"] == "open").any()
