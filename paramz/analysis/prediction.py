"""The loss of a model that was not trained, from a sweep of smaller ones.

Under muP one setting of the hyperparameters is right at every width, so that the losses of a width
sweep at fixed hyperparameters lie on one power law, which gives the loss of the next width
("research without re-search", Yao et al., arXiv 2304.06875). Every prediction comes with a test of
it: the largest scales are first held out and predicted from the rest.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from paramz.analysis.answer import mixed_in
from paramz.analysis.at_value import at_value
from paramz.analysis.counts import count_label
from paramz.analysis.held_out import MOST, held_out_of
from paramz.analysis.law import ScalingLaw, largest
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.lawwords import ahead_in_words
from paramz.analysis.repeats import repeated_seeds
from paramz.analysis.runs import ALL, led, merge_close, tidy_runs
from paramz.analysis.statuses import ended, left_out

# Published fits use 1e-3, against stray points among many that were read off a plot. The seed means
# of a sweep are few and hold none, and with 1e-3 the law would pass exactly through three of them.
_DELTA_OF_MEANS = 1e-2


@dataclass(frozen=True)
class Question:
    """What to predict, and from what.

    Attributes:
        scale: column of the scale.
        at: scales to predict.
        hp: column of the hyperparameter.
        value: its value; None for the best of each group's smallest scale.
        loss: column of the loss.
        law: a law with one input.
        hold: how many of the largest scales are held out as a test; None for two, or as many as the
            number of scales allows.
        delta: where the Huber loss turns linear, in log loss; None for 1e-2, as seed means hold no
            stray points.
        seed: column of the seed; may be absent.
    """

    scale: str
    at: tuple[float, ...] = ()
    hp: str = "lr"
    value: float | None = None
    loss: str = "loss"
    law: str = "power"
    hold: int | None = None
    delta: float | None = None
    seed: str = "seed"


@dataclass(frozen=True, eq=False)
class Prediction:
    """A law through one group's losses, its predictions, and its errors on held-out scales.

    Attributes:
        group: the group.
        hp: the value of the hyperparameter at which all its scales are compared.
        points: ``scale, loss, seeds``: the mean losses that are fitted.
        fit: the law through all of them.
        ahead: ``scale, mean, lo, hi``: the predictions, with 95% intervals for the mean of as many
            seeds as were run.
        trial: the law without the held-out scales; its ``holdout_error`` says how well it did.
        warnings: what to be careful about.
    """

    group: str
    hp: float
    points: pd.DataFrame
    fit: LawFit
    ahead: pd.DataFrame
    trial: LawFit
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Prediction of {self.group} at {self.hp:.4g}: {self.fit!r}>"

    def sentences(self, scale: str, hp: str) -> list[str]:
        """The prediction in words.

        Args:
            scale: what to call the scale.
            hp: what to call the hyperparameter.

        Returns:
            the law, its errors on held-out scales, each prediction and each warning.
        """
        tested = ", ".join(
            f"{count_label(size)} {error:+.2%}"
            for size, error in zip(
                self.trial.held_out["scale"], self.trial.holdout_error["error"], strict=True
            )
        )
        out = [
            f"loss = {self.fit.formula} with "
            f"{', '.join(f'{name} = {number:.4g}' for name, number in self.fit.params.items())}, "
            f"at {hp} {self.hp:.4g}, "
            f"{len(self.points)} values of {scale} from {count_label(self.points['scale'].min())} "
            f"to {count_label(self.points['scale'].max())}",
            f"held out and predicted from the smaller ones: {tested or 'none'}",
        ]
        cautions = [f"careful: {text}" for text in self.warnings]
        named = [led(self.group, text) for text in out]
        return [*named, *self.forecasts(scale), *(led(self.group, text) for text in cautions)]

    def forecasts(self, scale: str) -> list[str]:
        """A sentence per predicted scale, which `sentences` holds, too.

        Args:
            scale: what to call the scale.
        """
        return [led(self.group, s) for s in ahead_in_words(self.ahead, self.points, scale)]

    def to_json(self) -> dict[str, Any]:
        """The prediction as plain data."""
        held = self.trial.holdout_error.assign(scale=self.trial.held_out["scale"])
        return {
            "group": self.group,
            "hp": self.hp,
            "fit": json.loads(self.fit.to_json()),
            "held_out": [
                {
                    "scale": float(row["scale"]),
                    "actual": float(row["actual"]),
                    "predicted": float(row["mean"]),
                    "error": float(row["error"]),
                }
                for _, row in held.iterrows()
            ],
            "predicted": self.ahead.to_dict("records"),
            "warnings": list(self.warnings),
        }


def predict_loss(
    df: pd.DataFrame,
    at: float | Sequence[float] = (),
    *,
    scale: str = "width",
    hp: str = "lr",
    value: float | None = None,
    loss: str = "loss",
    by: str | Sequence[str] = "parametrization",
    law: str = "power",
    hold: int | None = None,
    seed: str = "seed",
) -> list[Prediction]:
    """Fit a law to each group's losses at one value of the hyperparameter.

    Seeds are averaged: they share the law's error, so counting each would narrow the interval
    without reason. Where other seeds ran at some scales, their effects are taken off. Values of the
    hyperparameter that differ by rounding are merged.

    Args:
        df: one row per run.
        at: scales to predict, or one.
        scale: column of the scale.
        hp: column of the hyperparameter.
        value: its value; by default the best of each group's smallest scale, which is what tuning
            a small model would have given.
        loss: column of the loss.
        by: column or columns of the groups.
        law: a law with one input.
        hold: how many of the largest scales are held out as a test; by default two, or as many as
            the number of scales allows, with a warning where that is fewer.
        seed: column of the seed; may be absent.

    Returns:
        one prediction per group.

    Raises:
        KeyError: a column is missing.
        ValueError: a group has too few scales, a run at the value diverged, or the value was not
            run; or a column holds values that cannot be used.

    >>> widths = [32, 64, 128, 256, 512, 1024, 2048]
    >>> df = pd.DataFrame({"width": widths, "lr": 0.01, "loss": [2 + 3 / w**0.5 for w in widths]})
    >>> ahead = predict_loss(df, 4096)[0].ahead
    >>> round(float(ahead["mean"].iloc[0]), 4), 2 + 3 / 64
    (2.0469, 2.046875)
    """
    scales = tuple(float(size) for size in np.atleast_1d(np.asarray(at, dtype=float)))
    question = Question(scale, scales, hp=hp, value=value, loss=loss, law=law, hold=hold, seed=seed)
    return _predict_all(df, by, question)


def predict_each(
    df: pd.DataFrame, by: Sequence[str], question: Question
) -> tuple[list[Prediction], list[str]]:
    """As `predict_loss`, but groups that cannot be predicted do not stop the others.

    Args:
        df: one row per run.
        by: columns of the groups; none for a single group of all runs.
        question: what to predict, and from what.

    Returns:
        the predictions, and for each group without one the reason.

    Raises:
        KeyError: a column is missing.
    """
    found: list[Prediction] = []
    refused: list[str] = []
    for _, part in df.groupby(list(by), sort=False, dropna=False) if by else [(ALL, df)]:
        try:
            found += _predict_all(part, by, question)
        except ValueError as error:
            refused.append(str(error))
    return found, refused


def _predict_all(df: pd.DataFrame, by: str | Sequence[str], question: Question) -> list[Prediction]:
    if question.hold is not None and question.hold < 0:
        raise ValueError(f"hold={question.hold}: it is how many of the largest scales are held out")
    for name, value in [("at", size) for size in question.at] + [("value", question.value)]:
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"{name}={value:g}: a {question.scale} or {question.hp} is above zero")
    names = {"hp": question.hp, "loss": question.loss, "scale": question.scale}
    kept = ended(df)
    runs, _ = merge_close(tidy_runs(kept, **names, by=by, seed=question.seed), question.hp)
    found = []
    for group, part in runs.groupby("group", sort=False):
        rows = kept[(runs["group"] == group).to_numpy()]
        mixed = mixed_in(rows, question.scale)
        again, repeated = repeated_seeds(part)
        told = [left_out(df, kept), *repeated]
        if mixed:
            told.append(
                f"runs differ in {' and '.join(mixed)}: what is predicted is for a run in which "
                f"that goes on as it does with {question.scale} here"
            )
        found.append(_predict(str(group), part[~again], question, told))
    return found


def _predict(group: str, runs: pd.DataFrame, question: Question, told: Sequence[str]) -> Prediction:
    found = at_value(group, runs, question.hp, question.scale, question.value)
    name, points = found.name, found.points
    absent = f"{question.scale} {found.missing} was not run at {name}, and is left out"
    try:
        hold = held_out_of(len(points), question.scale, question.law, question.hold)
    except ValueError as error:
        text = f"{name}: {error}"
        raise ValueError(f"{text}; {absent}" if found.missing else text) from None
    delta = _DELTA_OF_MEANS if question.delta is None else question.delta
    inputs: dict[str, Any] = {question.scale: "scale"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LawWarning)
        try:
            law = ScalingLaw(question.law)
            fit = law.fit(points, delta=delta, **inputs)
            trial = law.fit(points, delta=delta, holdout=largest("scale", hold), **inputs)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        ahead = _ahead(fit, question.at)
    # The two fits give the same warnings where they share the reason.
    cautions = list(
        dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, LawWarning))
    )
    if found.missing:
        cautions.append(absent)
    cautions += filter(None, (found.at_end, *told))
    if hold < MOST and question.hold is None:
        cautions.append(
            f"{len(points)} values of {question.scale} leave {hold or 'none'} to hold out as a "
            f"test; run {MOST - hold} more before you rely on this"
        )
    if max(question.at, default=0) > points["scale"].max() and fit.extrapolation.trials.empty:
        cautions.append(
            f"{len(points)} values of {question.scale} are too few to refit the law without the "
            "largest: the interval knows of noise alone, and is too narrow where the law bends"
        )
    if unclear := fit.unclear():
        cautions.append(
            f"the interval of {', '.join(unclear)} holds zero: the loss does not clearly fall "
            f"with {question.scale}"
        )
    return Prediction(group, found.value, points, fit, ahead, trial, tuple(cautions))


def _ahead(fit: LawFit, at: tuple[float, ...]) -> pd.DataFrame:
    """The predictions at these scales; without scales an empty table of the same columns."""
    sizes = np.asarray(at, dtype=float)
    ahead = (
        fit.predict(pd.DataFrame({"scale": sizes}))
        if len(sizes)
        else pd.DataFrame(columns=["mean", "lo", "hi"], dtype=float)
    )
    ahead.insert(0, "scale", sizes)
    return ahead
