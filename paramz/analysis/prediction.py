"""The loss of a model that was not trained, from a sweep of smaller ones.

Under muP one setting of the hyperparameters is right at every width, so that the losses of a width
sweep at fixed hyperparameters lie on one power law and the next width can be read off it ("research
without re-search", Yao et al., arXiv 2304.06875). What that is worth is shown each time: the
largest scales are first held out and predicted from the rest.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from paramz.analysis.law import ScalingLaw, largest
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.runs import tidy_runs

# Seed means of a sweep hold no stray points as figures read off a plot do, and there are few of
# them: the delta of 1e-3 that published fits use would make the law pass through three of them.
DELTA = 1e-2


@dataclass(frozen=True, eq=False)
class Prediction:
    """A law through one group's losses, what it says ahead and how it did on held-out scales.

    Attributes:
        group: The group.
        hp: Value of the hyperparameter at which all its scales are compared.
        points: `scale, loss, seeds`: the mean losses that are fitted.
        fit: The law through all of them.
        ahead: `scale, mean, lo, hi`: the predictions, with 95% intervals for the mean of as many
            seeds as were run.
        trial: The law without the held-out scales; its `holdout_error` says how well it did.
        warnings: What to be careful about.
    """

    group: str
    hp: float
    points: pd.DataFrame
    fit: LawFit
    ahead: pd.DataFrame
    trial: LawFit
    warnings: tuple[str, ...]

    def sentences(self, scale: str, hp: str) -> list[str]:
        """The prediction in words."""
        tested = ", ".join(
            f"{size:g} {error:+.2%}"
            for size, error in zip(
                self.trial.held_out["scale"], self.trial.holdout_error["error"], strict=True
            )
        )
        out = [
            f"{self.group}: loss = {self.fit.formula} at {hp} {self.hp:.4g}, "
            f"{len(self.points)} values of {scale} from {self.points['scale'].min():g} to "
            f"{self.points['scale'].max():g}",
            f"{self.group}: held out and predicted from the smaller ones: {tested}",
        ]
        for _, row in self.ahead.iterrows():
            top = f"{row['hi']:.5g}" if row["hi"] < 10 * row["mean"] else "no bound"
            out.append(
                f"{self.group}: {scale} {row['scale']:g}: loss {row['mean']:.5g} "
                f"(95% {row['lo']:.5g} to {top})"
            )
        return out + [f"{self.group}: careful: {text}" for text in self.warnings]


def predict_loss(
    df: pd.DataFrame,
    at: Sequence[float] = (),
    *,
    scale: str = "width",
    hp: str = "lr",
    value: float | None = None,
    loss: str = "loss",
    by: str | Sequence[str] = "parametrization",
    law: str = "power",
    hold: int = 2,
) -> list[Prediction]:
    """Fit a law to each group's losses at one value of the hyperparameter.

    Seeds are averaged: they share the law's error, so counting each would narrow the interval
    without reason.

    Args:
        df: One row per run.
        at: Scales to predict.
        scale: Column of the scale.
        hp: Column of the hyperparameter.
        value: Its value; by default the best of each group's smallest scale, which is what tuning
            a small model would have given.
        loss: Column of the loss.
        by: Column or columns of the groups.
        law: A law with one input.
        hold: How many of the largest scales the trial holds out.

    Returns:
        One per group whose runs at that value suffice.

    Raises:
        ValueError: A group has too few scales, a run at the value diverged, or the value was not
            run.

    >>> widths = [32, 64, 128, 256, 512, 1024, 2048]
    >>> df = pd.DataFrame({"width": widths, "lr": 0.01, "loss": [2 + 3 / w**0.5 for w in widths]})
    >>> ahead = predict_loss(df, [4096])[0].ahead
    >>> round(float(ahead["mean"].iloc[0]), 4), 2 + 3 / 64
    (2.0469, 2.046875)
    """
    runs = tidy_runs(df, hp=hp, loss=loss, scale=scale, by=by)
    return [
        _predict(str(group), part, at, scale, hp, value, law, hold)
        for group, part in runs.groupby("group", sort=False)
    ]


def _predict(
    group: str,
    runs: pd.DataFrame,
    at: Sequence[float],
    scale: str,
    hp: str,
    value: float | None,
    law: str,
    hold: int,
) -> Prediction:
    means = runs.groupby(["scale", "x"])["loss"].agg(["mean", "size"])
    smallest = means.loc[runs["scale"].min()]["mean"]
    x = float(smallest.idxmin()) if value is None else float(np.log2(value))
    points = means[np.abs(means.index.get_level_values("x") - x) < 1e-6].reset_index()
    points = points.rename(columns={"mean": "loss", "size": "seeds"})[["scale", "loss", "seeds"]]
    name = f"{group} at {hp} {2**x:.4g}"
    if points.empty:
        ran = ", ".join(f"{2**v:.4g}" for v in sorted(runs["x"].unique()))
        raise ValueError(f"{name}: not run; the values of {hp} are {ran}")
    if np.isinf(points["loss"]).any():
        where = ", ".join(f"{s:g}" for s in points.loc[np.isinf(points["loss"]), "scale"])
        raise ValueError(
            f"{name}: diverged at {scale} {where}, so the losses lie on no one law: choose a "
            f"smaller {hp}"
        )
    width: dict[str, Any] = {scale: "scale"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LawWarning)
        try:
            fit = ScalingLaw(law).fit(points, delta=DELTA, **width)
            trial = ScalingLaw(law).fit(
                points, delta=DELTA, holdout=largest("scale", hold), **width
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        sizes = np.asarray(at, dtype=float)
        ahead = (
            fit.predict(pd.DataFrame({"scale": sizes}))
            if len(sizes)
            else pd.DataFrame(columns=["mean", "lo", "hi"], dtype=float)
        )
        laws = [str(w.message) for w in caught if issubclass(w.category, LawWarning)]
    told = list(dict.fromkeys(laws))
    if unclear := fit.unclear():
        told.append(
            f"the interval of {', '.join(unclear)} holds zero: the loss does not clearly fall "
            f"with {scale}"
        )
    ahead.insert(0, "scale", sizes)
    return Prediction(group, 2**x, points, fit, ahead, trial, tuple(told))
