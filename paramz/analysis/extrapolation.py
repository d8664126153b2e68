"""How much further from a law new rows lie than its own residuals let one expect.

A bootstrap knows of noise alone. That the law is not quite right, or that larger runs scatter more,
shows only where rows are held out: so the law is refitted without its largest rows, by each input
and by all together, and the errors of the rows above the cut are compared with the interval that
the rows below it gave. For a true law the squared error over the squared width of the interval is
one on average. What it exceeds one by is taken to grow in proportion to the distance beyond the
cut, in logarithms of the input, and never to be less than its average over the trials; of several
inputs the worst counts. Intervals beyond the rows that were fitted are widened by the root of that.

The rule was chosen on splits by N and by D of the published Chinchilla points, and on broken power
laws fitted by a plain one. What `benchmarks/holdout.py` publishes are other splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, Mask
from paramz.analysis.problem import Problem
from paramz.analysis.refits import PAIRS_FROM, bootstrap

# What share of the rows each trial keeps, and of how many resamples its interval is made.
_SHARES = (0.5, 0.65, 0.8)
_DRAWS = 50
# One row may not count for more than this, in squared widths: it may be an outlier.
_MOST = 16.0
# A prediction this many times outside the fitted range of an input earns a warning.
_FAR = 10.0
# A trial needs this many rows more than parameters.
_SPARE = 3


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """What held-out errors say of the intervals beyond the rows that were fitted.

    Attributes:
        at_edge: the factor on the width of an interval just beyond the rows, at least one.
        growth: what is added to the square of the factor per unit of distance (a factor e in an
            input).
        trials: ``order, cut, rows, distance, excess``: for each refit without the largest rows, the
            mean distance of these beyond the rest, and their mean squared error over that expected.
    """

    at_edge: float
    growth: float
    trials: pd.DataFrame

    def factor(self, distance: Array) -> Array:
        """By what intervals are widened at these distances, one within the rows."""
        wide = np.sqrt(np.maximum(self.at_edge**2, 1 + self.growth * distance))
        return np.where(distance > 0, wide, 1.0)


def measure(problem: Problem, theta: Array, groups: Array | None) -> Extrapolation:
    """Refit without the largest rows and see how far these lie from what is predicted.

    Args:
        problem: what was fitted.
        theta: the fitted internal parameters, shape (p,).
        groups: a label per row, the same for rows that are resampled together; or None.

    Returns:
        the factors; one where there are too few rows for a trial.
    """
    orders = _orders(problem.logs)
    found = []
    for order, values in enumerate(orders):
        seen: set[int] = set()
        for share in _SHARES:
            keep = _below(values, share, problem.free + _SPARE)
            if keep.all() or int(keep.sum()) in seen:
                continue
            seen.add(int(keep.sum()))
            part = problem.rows(keep)
            if (np.ptp(part.logs, axis=1) == 0).any():
                continue
            excess = _trial(problem, part, theta, keep, None if groups is None else groups[keep])
            beyond = float(_distance(orders[:, keep], orders[:, ~keep]).mean())
            found.append((order, share, int(keep.sum()), beyond, excess))
    trials = pd.DataFrame(found, columns=["order", "cut", "rows", "distance", "excess"])
    if trials.empty:
        return Extrapolation(1.0, 0.0, trials)
    mean = trials.groupby("order")[["distance", "excess"]].mean()
    growth = (mean["excess"] - 1) / mean["distance"].clip(lower=1e-9)
    return Extrapolation(
        float(np.sqrt(max(1.0, mean["excess"].max()))), max(0.0, float(growth.max())), trials
    )


def distance(fitted: Array, new: Array) -> Array:
    """How far rows lie outside those that were fitted: the most of all inputs and their sum.

    Args:
        fitted: logarithms of the inputs, shape (inputs, rows).
        new: the same of other rows.

    Returns:
        logarithms of ratios, zero within the range, shape (new rows,).
    """
    return _distance(_orders(fitted), _orders(new))


def far(problem: Problem, logs: Array) -> Iterator[str]:
    """Inputs of new rows that lie far outside those that were fitted, each as a warning."""
    # A single input is called what it is called in the formula.
    names = problem.columns if len(problem.columns) == 1 else problem.columns.values()
    for column, seen, asked, mean in zip(names, problem.logs, logs, problem.means, strict=True):
        ratio = float(np.exp(max(asked.max() - seen.max(), seen.min() - asked.min())))
        if ratio > _FAR * (1 + 1e-9):
            low, high = np.exp([seen.min() + mean, seen.max() + mean])
            yield (
                f"{column} lies up to {ratio:.3g} times outside the fitted range {low:.4g} to "
                f"{high:.4g}: the interval is right only if the law still holds there"
            )


def _orders(logs: Array) -> Array:
    """What rows can be ordered by: each input, and all together (for N and D: the compute)."""
    return logs if len(logs) == 1 else np.concatenate([logs, logs.sum(axis=0)[None]])


def _distance(fitted: Array, new: Array) -> Array:
    low, high = fitted.min(axis=1)[:, None], fitted.max(axis=1)[:, None]
    # Rounding of the logarithms is no distance.
    out = np.maximum(new - high, low - new).max(axis=0)
    return np.where(out > 1e-9, out, 0.0)


def _below(values: Array, share: float, least: int) -> Mask:
    count = min(max(int(np.ceil(share * len(values))), least), len(values))
    return np.asarray(values <= np.sort(values)[count - 1])


def _trial(whole: Problem, part: Problem, theta: Array, keep: Mask, groups: Array | None) -> float:
    """Mean squared error of the rows left out, over the squared error expected of them."""
    theta = part.minimize(theta[None]).theta[0]
    kind = "pairs" if len(keep) >= PAIRS_FROM else "parametric"
    # Few of the groups may be left, whose resamples would hold too few to determine a law.
    labels = groups if kind == "pairs" else None
    draws = bootstrap(part, theta, labels, draws=_DRAWS, kind=kind, seed=0)
    left = whole.logs[:, ~keep]
    low, high = np.quantile(part.values(draws.theta, left), [0.16, 0.84], axis=0)
    residual = part.residuals(theta)
    noise = np.sum(residual**2) / (len(residual) - whole.free)
    error = whole.target[~keep] - part.values(theta[None], left)[0]
    expected = ((high - low) / 2) ** 2 + noise
    # Laws that fit to rounding have neither error nor width.
    floor = 1e-24 * np.max(whole.target**2)
    return float(np.minimum((error**2 + floor) / (expected + floor), _MOST).mean())
