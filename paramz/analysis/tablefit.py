"""A law through all runs of a table, with a test of it and what it is asked for, in words."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd

from paramz.analysis.columns import numbers, positive, require
from paramz.analysis.counts import count_label
from paramz.analysis.forms import FORMS
from paramz.analysis.law import ScalingLaw
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.lawwords import finite
from paramz.analysis.statuses import begun


@dataclass(frozen=True)
class Sizes:
    """What to fit to a table, and what to predict.

    Attributes:
        law: a name of `FORMS`.
        inputs: the column of each input; by default those of the law's own names.
        points: where to predict, each a size per input.
        compute: FLOP to divide between N and D.
        loss: column of the loss.
        hold: how many of the largest runs are held out as a test; None for two.
        delta: where the Huber loss turns linear; None for what suits the response.
    """

    law: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Mapping[str, float], ...] = ()
    compute: tuple[float, ...] = ()
    loss: str = "loss"
    hold: int | None = None
    delta: float | None = None


@dataclass(frozen=True, eq=False)
class TableFit:
    """A law through a table.

    Attributes:
        fit: the law through all runs.
        trial: the law without those held out; None where none is.
        ahead: the sizes asked for, and ``mean, lo, hi``.
        split: how compute is divided, as `LawFit.optimal_allocation` gives it; empty where none is.
        left_out: the number of runs without a finite loss, or that failed.
        warnings: what to be careful about.
    """

    fit: LawFit
    trial: LawFit | None
    ahead: pd.DataFrame
    split: pd.DataFrame
    left_out: int
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<TableFit {self.fit!r}>"

    def sentences(self) -> list[str]:
        """The fit in words: the law, its test, what was asked for, and each warning."""
        lines = self.fit.summary().split("\n")
        lines = [line for line in lines if not line.startswith("warning: ")]
        if self.trial is not None:
            held = self.trial.holdout_error
            error = held["error"].astype(float)
            lines.append(
                f"the {len(held)} largest runs, predicted from the others: errors "
                f"{', '.join(f'{e:+.2%}' for e in error)}; {int(held['inside'].sum())} of "
                f"{len(held)} inside their 95% interval"
            )
        names = list(self.fit.columns)
        for _, row in self.ahead.iterrows():
            at = ", ".join(f"{n} {count_label(row[n])}" for n in names)
            lines.append(
                f"{at}: {self.fit.loss} {row['mean']:.5g} (95% {row['lo']:.5g} to {row['hi']:.5g})"
            )
        for _, row in self.split.iterrows():
            lines.append(
                f"compute {row['C']:.3g}: "
                f"N {count_label(row['N'])} ({count_label(row['N_lo'])} to "
                f"{count_label(row['N_hi'])}), "
                f"D {count_label(row['D'])} ({count_label(row['D_lo'])} to "
                f"{count_label(row['D_hi'])})"
            )
        if self.left_out:
            lines.append(f"left out: {self.left_out} runs that failed, diverged or have no loss")
        return lines + [f"careful: {text}" for text in self.warnings]

    def to_json(self) -> dict[str, Any]:
        """The fit as plain data."""
        held = None if self.trial is None else self.trial.holdout_error
        return {
            "fit": json.loads(self.fit.to_json()),
            "held_out": [] if held is None else _records(held),
            "predicted": _records(self.ahead),
            "allocation": _records(self.split),
            "left_out": self.left_out,
            "warnings": list(self.warnings),
        }


def inputs_of(law: str) -> tuple[str, ...]:
    """The inputs of a law.

    Raises:
        ValueError: there is no such law.

    >>> inputs_of("chinchilla")
    ('N', 'D')
    """
    if law not in FORMS:
        raise ValueError(f"no law {law!r}; choose one of {', '.join(FORMS)}")
    return FORMS[law].inputs


def fit_table(df: pd.DataFrame, asked: Sizes) -> TableFit:
    """Fit a law to all finished runs of a table.

    Args:
        df: one row per run; those that failed, diverged or have no finite loss are left out.
        asked: what to fit and to predict.

    Returns:
        the fit.

    Raises:
        KeyError: a column is missing.
        ValueError: there is no such law, there are too few runs, a point lacks an input, or the
            compute cannot be divided.

    >>> n = np.repeat([1e7, 1e8, 1e9], 3)
    >>> runs = pd.DataFrame({"N": n, "D": n * np.tile([5.0, 20.0, 80.0], 3)})
    >>> runs["loss"] = 1.8 + 480 / runs["N"] ** 0.35 + 2100 / runs["D"] ** 0.37
    >>> found = fit_table(runs, Sizes("chinchilla", points=({"N": 1e10, "D": 2e11},)))
    >>> round(float(found.ahead["mean"].iloc[0]), 3)
    2.09
    """
    form = inputs_of(asked.law)
    given = dict(asked.inputs) or {name: name for name in form}
    missing = [c for c in (*given.values(), asked.loss) if c not in df]
    if missing:
        raise KeyError(
            f"the law {asked.law!r} needs the columns {', '.join(given.values())} and "
            f"{asked.loss}, and there is no {', '.join(missing)}; the columns are: "
            f"{', '.join(map(str, df.columns))}. Name them with --map theirs=ours"
        )
    require(df, *given.values(), asked.loss)
    df = begun(df)
    good = np.isfinite(numbers(df, asked.loss))
    if "status" in df:
        good &= df["status"].eq("ok").to_numpy()
    runs = df[good]
    hold = 2 if asked.hold is None else asked.hold
    need = len(FORMS[asked.law].params) + 1 + hold
    if len(runs) < need:
        raise ValueError(
            f"{asked.law!r} with {hold} runs held out as a test needs {need} runs "
            f"({need - 1 - hold} parameters, one to spare), you have {len(runs)}: run more, "
            "hold out fewer (--hold), or take a law with fewer parameters (--law)"
        )
    points = _points(asked, list(given))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LawWarning)
        law, columns = ScalingLaw(asked.law), cast("dict[str, Any]", given)
        fit = law.fit(runs, loss=asked.loss, delta=asked.delta, **columns)
        trial = None
        if hold:
            size = np.sum([np.log(positive(runs, c)) for c in given.values()], axis=0)
            out = np.zeros(len(runs), dtype=bool)
            out[np.argsort(size, kind="stable")[-hold:]] = True
            trial = law.fit(
                runs, loss=asked.loss, delta=asked.delta, holdout=lambda _: out, **columns
            )
        ahead = points.rename(columns=given)
        if len(points):
            ahead = pd.concat([points, fit.predict(ahead)], axis=1)
        split = fit.optimal_allocation(list(asked.compute)) if asked.compute else pd.DataFrame()
    told = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, LawWarning))
    return TableFit(fit, trial, ahead, split, int((~good).sum()), tuple(told))


def _points(asked: Sizes, names: list[str]) -> pd.DataFrame:
    """Where to predict, a column per input."""
    for point in asked.points:
        if set(point) != set(names):
            raise ValueError(
                f"{asked.law!r} predicts at {' and '.join(names)}, as in "
                f"--predict {','.join(f'{n}=1e9' for n in names)}; got {', '.join(point)}"
            )
    return pd.DataFrame([dict(p) for p in asked.points], columns=names, dtype=float)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain data, None for what has no number."""
    return [
        {str(k): finite(v) if isinstance(v, float) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]
