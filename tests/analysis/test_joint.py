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


def lopsided(kind: str, rng: np.random.Generator) -> pd.DataFrame:
    """Best at lr 2^-5 and batch 2^6 too, but steeper on one side."""
    df = grid(range(4, 9), range(-9, -1), noise=0.0)
    b = np.log2(df["batch_size"]) - 6
    x = np.log2(df["lr"]) + 5 - b / 2
    loss = {
        "kink": 0.02 * x**2 + np.where(x > 0, 0.04, 0.0) * x**2 + 0.01 * b**2,
        "exponential": 0.08 * (np.exp(0.7 * x) - 0.7 * x - 1) + 0.01 * b**2,
        "in both": 0.16 * (np.exp(x / 2) - x / 2 - 1) + 0.08 * (np.exp(b / 2) - b / 2 - 1),
        "morse": 0.16 * (1 - np.exp(0.35 * x)) ** 2 + 0.01 * b**2,
    }[kind]
    return df.assign(loss=2 + loss + 0.004 * rng.standard_normal(len(df)))


@pytest.mark.parametrize("kind", ["kink", "exponential", "in both", "morse"])
def test_bowls_may_be_steeper_on_one_side(kind: str) -> None:
    """A quadratic alone put the best learning rate 0.7 to 1.1 octaves off."""
    rng = np.random.default_rng(0)
    found = pd.concat([pa.joint_optimum(lopsided(kind, rng)) for _ in range(3)])
    assert (found["flag"] == "").all()
    assert found["hp_lo"].lt(2.0**-5).all() and found["hp_hi"].gt(2.0**-5).all()
    assert found["batch_lo"].lt(64).all() and found["batch_hi"].gt(64).all()
    assert (np.log2(found["hp"]) + 5).abs().max() < 0.4
    assert np.log2(found["hp_hi"] / found["hp_lo"]).median() < 1.5


def test_a_parabola_is_told_from_a_lopsided_bowl() -> None:
    found = pa.joint_optimum(grid(range(4, 9), range(-9, -1)))
    assert (np.log2(found["hp"]) + 5).abs().max() < 0.05
    assert np.log2(found["hp_hi"] / found["hp_lo"]).max() < 0.3


def test_where_the_best_batch_lies_beyond_the_points_the_optimum_is_the_lowest_of_them() -> None:
    found = pa.joint_optimum(grid(range(1, 5), range(-10, -3)))
    assert found["batch"].between(2, 16).all() and np.isinf(found["batch_hi"]).all()


def test_a_cross_of_points_does_not_tell_how_the_rate_moves_with_the_batch() -> None:
    """A slope of 0.0 was read off it."""
    df = grid(range(4, 9), range(-9, -1))
    cross = df[(df["lr"] == 2.0**-5) | (df["batch_size"] == 64)]
    assert (pa.joint_optimum(cross)["flag"] == "too few").all()


def test_six_places_are_too_few_however_many_seeds_ran() -> None:
    df = grid(range(5, 8), range(-6, -3))
    six = np.log2(df["lr"]) + np.log2(df["batch_size"]) <= 1
    assert (pa.joint_optimum(df[six])["flag"] == "too few").all()


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_unit_of_losses_moves_no_joint_optimum(unit: float) -> None:
    df = grid(range(4, 9), range(-9, -1))
    found = pa.joint_optimum(df.assign(loss=unit * df["loss"]))
    assert found["hp"].to_numpy() == pytest.approx(pa.joint_optimum(df)["hp"].to_numpy(), rel=1e-6)


def test_an_interval_without_ends_is_flagged() -> None:
    df = grid(range(4, 9), range(-8, -2))
    flat = df["loss"] - 0.01 * (np.log2(df["batch_size"]) - 6) ** 2
    found = pa.joint_optimum(df.assign(loss=flat))
    wide = np.isinf(found["hp_hi"])
    assert (
        found["flag"].isin(["open", "edge", "saddle"]).all() and wide[found["flag"] == "open"].all()
    )
    assert (found["flag"] == "open").any()
