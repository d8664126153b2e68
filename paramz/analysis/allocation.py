"""How a law divides a compute between parameters N and tokens D."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from paramz.analysis import limits
from paramz.analysis.columns import Array
from paramz.analysis.problem import Problem

# Inputs that share this much of their variance say nothing of how to divide compute between them.
_HOPELESS = 0.99
# A compute this many times outside that of the rows is told of: ten times each input.
_FAR = 100.0


def allocate(
    problem: Problem, theta: Array, flops: float | Sequence[float], per: float, level: float
) -> pd.DataFrame:
    """N and D that minimize the loss for each compute C = per * N * D.

    Args:
        problem: what was fitted; its inputs are N and D.
        theta: internal parameters of the fit, then those of a bootstrap, shape (1 + draws, p);
            with none of these there are no intervals.
        flops: one or more computes.
        per: FLOP per parameter and token, in the units of N and D.
        level: coverage of the intervals.

    Returns:
        ``C, N, N_lo, N_hi, D, D_lo, D_hi`` and ``exponent, exponent_lo, exponent_hi``, the slope of
        log N over log C. Bounds that lie beyond the grid are 0 or infinite.

    Raises:
        ValueError: a compute is no positive number, or the law has no lowest loss within a factor
            of a million of the data.
    """
    tail = (1 - level) / 2
    rows = []
    for c in np.atleast_1d(np.asarray(flops, dtype=float)):
        if not 0 < c < np.inf:
            raise ValueError(f"a compute of {c:g} is none: give FLOP, a positive number")
        log_c = np.log(c / per)
        at = _best_log_n(problem, theta, log_c)
        if not np.isfinite(at[0]):
            names = list(problem.columns.values())
            raise ValueError(
                f"at a compute of {c:.3g} the fitted law has no lowest loss in between: it falls "
                f"towards ever {'larger' if at[0] > 0 else 'smaller'} {names[0]} at the cost of "
                f"{names[1]}. The rows do not determine how to divide compute between {names[0]} "
                f"and {names[1]}: add runs at other ratios of the two"
            )
        with np.errstate(invalid="ignore"):  # infinity minus infinity: no slope
            slope = _best_log_n(problem, theta, log_c + 0.5) - _best_log_n(
                problem, theta, log_c - 0.5
            )
        row = {"C": c}
        for name, values in (
            ("N", np.exp(at)),
            ("D", np.exp(log_c - at)),
            ("exponent", slope),
        ):
            lo, hi = _bounds(values[1:], tail) if len(values) > 1 else (np.nan, np.nan)
            row |= {name: values[0], f"{name}_lo": lo, f"{name}_hi": hi}
        rows.append(row)
    return pd.DataFrame(rows)


def check_divisible(problem: Problem) -> None:
    """Refuse to divide a compute where the fit says nothing about it.

    Args:
        problem: what was fitted.

    Raises:
        ValueError: the inputs of the law are not N and D, it is no law of a loss, or the rows do
            not determine how to divide compute.
    """
    form = problem.form
    if not form.is_loss:
        raise ValueError(
            f"the law {form.name!r} is one of a hyperparameter, and the least of that is no goal: "
            "fit a law of the loss, such as 'chinchilla', to divide compute by"
        )
    if form.inputs != ("N", "D"):
        raise ValueError(
            f"the law {form.name!r} has the inputs {', '.join(form.inputs)}; compute can be "
            "divided between N and D only"
        )
    if text := limits.together(problem, _HOPELESS):
        raise ValueError(f"no compute can be divided by this fit: {text}")


def far_from_rows(problem: Problem, flops: float | Sequence[float], per: float) -> Iterator[str]:
    """Computes far from those of the rows, each as a warning.

    Args:
        problem: what was fitted; its inputs are N and D.
        flops: one or more computes.
        per: FLOP per parameter and token, in the units of N and D.
    """
    size, data = problem.columns.values()
    spent = per * np.exp((problem.logs + problem.means[:, None]).sum(axis=0))
    for c in np.atleast_1d(np.asarray(flops, dtype=float)):
        ratio = max(c / spent.max(), spent.min() / c) if c > 0 else 0.0
        if ratio > _FAR:
            yield (
                f"a compute of {c:.3g} lies {ratio:.3g} times outside that of the rows, {per:g} "
                f"{size} {data} = {spent.min():.3g} to {spent.max():.3g}: the law is not known "
                f"there. If {size} or {data} is counted in millions or billions, give whole numbers"
            )


def _bounds(values: Array, tail: float) -> tuple[float, float]:
    """Quantiles; those that are not a number are open on both sides."""
    low = np.where(np.isnan(values), -np.inf, values)
    high = np.where(np.isnan(values), np.inf, values)
    # No interpolation, which makes of two infinities no number.
    return (
        float(np.quantile(low, tail, method="lower")),
        float(np.quantile(high, 1 - tail, method="higher")),
    )


def _best_log_n(problem: Problem, theta: Array, log_c: float) -> Array:
    """Where along N * D = C the law is lowest: a grid in log N, then a parabola.

    Infinite where that is an end of the grid.
    """
    means = problem.means
    seen = problem.logs.mean(axis=1) + means
    middle = seen[0] + (log_c - seen.sum()) / 2
    grid = middle + np.linspace(-14, 14, 561)
    logs = np.stack([grid - means[0], log_c - grid - means[1]])
    values, _ = problem.form.evaluate(theta, logs)
    lowest = values.argmin(axis=1)
    rows, at = np.arange(len(theta)), np.clip(lowest, 1, len(grid) - 2)
    left, here, right = (values[rows, at + i] for i in (-1, 0, 1))
    bend = left - 2 * here + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    best = grid[at] + np.clip(shift, -1, 1) * (grid[1] - grid[0])
    best = np.where(lowest == 0, -np.inf, best)
    return np.asarray(np.where(lowest == len(grid) - 1, np.inf, best))
