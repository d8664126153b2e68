"""The mean loss at every scale for one value of a hyperparameter: what a law goes through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.runs import ALL, CLOSE, led

_ROUNDS = 30


@dataclass(frozen=True, eq=False)
class AtValue:
    """What was measured at one value of the hyperparameter.

    Attributes:
        value: of the hyperparameter.
        name: what to call it in messages.
        points: ``scale, loss, seeds``: mean losses, without the effects of which seeds ran.
        missing: scales without a run at it, in words; empty where there are none.
        at_end: that it is the last of the values at the smallest scale, where it was chosen as the
            best there, in words; empty where it is not.
    """

    value: float
    name: str
    points: pd.DataFrame
    missing: str
    at_end: str


def at_value(group: str, runs: pd.DataFrame, hp: str, scale: str, value: float | None) -> AtValue:
    """The mean losses of one group at a value of the hyperparameter.

    Args:
        group: the group.
        runs: ``scale, x, seed, loss``, as from `tidy_runs`.
        hp: what to call the hyperparameter.
        scale: what to call the scale.
        value: the value, or one that differs from it by rounding; None for the best of the smallest
            scale.

    Raises:
        ValueError: no run has the value, some run at it diverged, or every value diverged at the
            smallest scale.
    """
    x = _best_of_smallest(group, runs, hp, scale) if value is None else float(np.log2(value))
    there = np.unique(runs["x"])
    nearest = float(there[np.abs(there - x).argmin()])
    x = nearest if abs(nearest - x) < CLOSE else x  # as a table prints it
    name = f"{hp} {2**x:.4g}" if group == ALL else f"{group} at {hp} {2**x:.4g}"
    part = runs[np.abs(runs["x"] - x) < 1e-6]
    if part.empty:
        ran = ", ".join(f"{2**v:.4g}" for v in there)
        raise ValueError(f"{name}: not run; the values of {hp} are {ran}")
    if np.isinf(part["loss"]).any():
        where = ", ".join(f"{s:g}" for s in np.unique(part.loc[np.isinf(part["loss"]), "scale"]))
        raise ValueError(
            f"{name}: diverged at {scale} {where}, so the losses lie on no one law: "
            f"choose a smaller {hp} (value=, paramz fit --at)"
        )
    missing = [f"{s:g}" for s in np.unique(runs["scale"]) if s not in set(part["scale"])]
    at_end = ""
    if value is None:
        grid = runs.loc[runs["scale"] == runs["scale"].min(), "x"]
        if grid.nunique() > 1 and x in (grid.min(), grid.max()):
            which = "largest" if x == grid.max() else "smallest"
            at_end = (
                f"{name} is the best at {scale} {runs['scale'].min():g} and the {which} that was "
                "run there: the best may lie beyond, where losses are lower"
            )
    return AtValue(2**x, name, _means(part), ", ".join(missing), at_end)


def _best_of_smallest(group: str, runs: pd.DataFrame, hp: str, scale: str) -> float:
    """Log2 of the value at which the smallest scale has the lowest mean loss."""
    small = runs[runs["scale"] == runs["scale"].min()]
    means = small.groupby("x")["loss"].mean()
    if np.isinf(means).all():
        raise ValueError(
            led(group, f"a run diverged at every {hp} of {scale} {runs['scale'].min():g}, the ")
            + "smallest, whose best is taken: leave it out, or name a value (value=, --at)"
        )
    return float(means.idxmin())


def _means(part: pd.DataFrame) -> pd.DataFrame:
    """Mean losses by scale; where other seeds ran at some of them, without the seeds' effects."""
    loss, scale, seed = part["loss"], part["scale"], part["seed"]
    offset = pd.Series(0.0, index=part.index)
    if len({frozenset(seeds) for _, seeds in seed.groupby(scale)}) > 1:
        for _ in range(_ROUNDS):
            rest = loss - (loss - offset).groupby(scale).transform("mean")
            offset = rest.groupby(seed, dropna=False).transform("mean")
            offset -= offset.groupby(seed, dropna=False).first().mean()
    means = (loss - offset).groupby(scale).agg(["mean", "size"]).reset_index()
    return means.rename(columns={"mean": "loss", "size": "seeds"})[["scale", "loss", "seeds"]]
