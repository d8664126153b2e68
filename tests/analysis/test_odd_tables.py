"""Tables that are no DataFrames, and rows that share a run or are there twice."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pyarrow
import pytest

from paramz.analysis.criticalbatch import critical_batch
from paramz.analysis.joint import joint_optimum
from paramz.analysis.law import ScalingLaw
from paramz.analysis.lawfit import LawWarning
from paramz.analysis.prediction import predict_loss
from paramz.analysis.transfer import transfer


def checkpoints(seed: int = 0) -> pd.DataFrame:
    """Seven runs, each with an error of its own that its four rows share."""
    rng = np.random.default_rng(seed)
    width = np.repeat(32.0 * 2 ** np.arange(7), 4)
    error = np.repeat(0.01 * rng.standard_normal(7), 4) + 0.001 * rng.standard_normal(28)
    return pd.DataFrame({"width": width, "loss": (2 + 9 / width**0.5) * np.exp(error)})


@pytest.mark.parametrize("analysis", [transfer, predict_loss, ScalingLaw("chinchilla").fit])
@pytest.mark.parametrize("kind", [pyarrow.Table.from_pylist, list])
def test_a_table_that_is_no_dataframe_says_how_to_make_one(analysis, kind) -> None:  # type: ignore[no-untyped-def]
    """It was "no column 'lr'", with the data themselves for the names of columns."""
    with pytest.raises(TypeError, match="must be a pandas DataFrame, got .*: (its to_pandas|pd.)"):
        analysis(kind([{"width": 32, "lr": 0.1, "loss": 2.0}]))


def test_few_rows_that_share_runs_are_resampled_by_run() -> None:
    """Below 30 rows groups were ignored, and 95 % intervals held half of the parameters."""
    held = 0
    for seed in range(12):
        df = checkpoints(seed).assign(run=lambda d: "w" + d["width"].astype(str))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LawWarning)
            fit = ScalingLaw("power").fit(df, width="width", groups="run")
        assert fit.draws.kind == "pairs"
        low, high = fit.conf_int(draws=fit.bootstrap(200)).loc["E"]
        held += low <= 2 <= high
    assert held >= 10
    with pytest.raises(ValueError, match="several share a group here: choose 'pairs'"):
        fit.bootstrap(kind="parametric")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([None] * 28, "28 of 28 rows hold nothing, the first is row 0"),
        (["a"] * 14 + [np.nan] * 14, "14 of 28 rows hold nothing, the first is row 14"),
        (["a"] * 28, "all rows share one 'run': nothing shows how runs differ"),
    ],
)
def test_groups_that_tell_nothing_apart_are_refused(runs: list[object], message: str) -> None:
    """All rows in one group gave intervals of no width."""
    with pytest.raises(ValueError, match=message):
        ScalingLaw("power").fit(checkpoints().assign(run=runs), width="width", groups="run")


def test_few_groups_and_labels_of_several_types_are_taken_for_what_they_are() -> None:
    runs = [f"r{i // 7}" if i < 21 else 3 for i in range(28)]
    with pytest.warns(LawWarning, match="4 values of 'run' for 3 parameters"):
        ScalingLaw("power").fit(checkpoints().assign(run=runs), width="width", groups="run")


def test_rows_that_are_there_twice_are_told_of() -> None:
    df = checkpoints()
    with pytest.warns(LawWarning, match="28 of 56 rows repeat the inputs and the loss"):
        ScalingLaw("power").fit(pd.concat([df, df], ignore_index=True), width="width")


def test_an_empty_cell_for_a_seed_is_a_seed() -> None:
    """The surface ended in "SVD did not converge", or in an index out of bounds."""
    rng = np.random.default_rng(0)
    cells = itertools.product((64, 128), range(-8, -2), range(4, 9), (0.0, np.nan))
    df = pd.DataFrame(cells, columns=["width", "x", "b", "seed"])
    df["loss"] = 2 + 0.02 * (df["x"] + 8 - df["b"] / 2) ** 2 + 0.01 * (df["b"] - 6) ** 2
    df["loss"] += 0.002 * rng.standard_normal(len(df))
    df = df.assign(lr=2.0 ** df["x"], batch_size=2.0 ** df["b"])
    found = joint_optimum(df)
    pd.testing.assert_frame_equal(found, joint_optimum(df.assign(seed=df["seed"].fillna(1.0))))
    with pytest.raises(ValueError, match=r"'seed_of_run' \(seeds are named by seed=\)"):
        joint_optimum(df.assign(seed_of_run=df["seed"].fillna(1.0)).drop(columns="seed"))


@pytest.mark.parametrize("asked", [{"tolerance": -1.0}, {"tolerance": np.nan}, {"draws": 0}])
def test_what_makes_no_interval_is_refused(asked: dict[str, float]) -> None:
    """A tolerance below zero failed every sweep."""
    df = pd.DataFrame({"width": [32, 64] * 4, "lr": np.repeat([0.1, 0.2, 0.4, 0.8], 2), "loss": 2})
    with pytest.raises(ValueError, match="a tolerance is above zero"):
        transfer(df, **asked)  # type: ignore[arg-type]


def test_steps_written_as_texts_are_in_the_order_of_numbers() -> None:
    """They were sorted as texts, 10 before 9, and a loss was reached at another step."""
    rows = [
        {"batch": b, "step": t, "loss": 2 + (1 + 512 / b) / t}
        for b in (64, 128, 256, 512, 1024)
        for t in range(1, 300)
    ]
    df = pd.DataFrame(rows)
    assert critical_batch(df.astype({"step": str}), 2.05).points.equals(
        critical_batch(df, 2.05).points
    )
