"""Refits of a fitted law: on resamples of its rows, and under other choices of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array
from paramz.analysis.problem import Problem

# With fewer rows, resampling them would leave the law undetermined too often.
PAIRS_FROM = 30


@dataclass(frozen=True, eq=False)
class Draws:
    """A bootstrap.

    Attributes:
        params: one row per resample.
        theta: the same, in the form's internal parameters.
        noise: a residual for each resample, for predictive intervals.
        kind: ``"pairs"`` (rows, or groups of rows, resampled) or ``"parametric"`` (normal log
            residuals about the fit, their size drawn as well).
    """

    params: pd.DataFrame
    theta: Array
    noise: Array
    kind: str

    def __repr__(self) -> str:
        return f"<Draws: {len(self.params)} {self.kind} bootstraps>"


def bootstrap(
    problem: Problem,
    theta: Array,
    groups: Array | None,
    *,
    draws: int,
    kind: str | None,
    seed: int,
) -> Draws:
    """Refit on resamples, all at once, from the optimum.

    Args:
        problem: what was fitted.
        theta: the fitted internal parameters, shape (p,).
        groups: a label per row, the same for rows that are resampled together; None where each row
            is on its own.
        draws: number of resamples.
        kind: ``"pairs"`` or ``"parametric"``; by default pairs from `PAIRS_FROM` rows on, and
            wherever rows share a group.
        seed: seed of the resampling.

    Returns:
        the draws.

    Raises:
        ValueError: there is no such kind, or none for rows that share a group, or no more rows
            than parameters.
    """
    n, p = len(problem.target), problem.free
    # Normal residuals of their own would make of checkpoints of one run so many runs.
    together = groups is not None and len(np.unique(groups)) < n
    kind = kind or ("pairs" if n >= PAIRS_FROM or together else "parametric")
    if kind == "parametric" and together:
        raise ValueError(
            "a parametric bootstrap takes each row for a run of its own, and several share a group "
            "here: choose 'pairs', which resamples groups"
        )
    if kind not in ("pairs", "parametric"):
        raise ValueError(f"no bootstrap {kind!r}: choose 'pairs' or 'parametric'")
    if n <= p:
        raise ValueError(
            f"{n} rows for {p} parameters leave no residuals: no interval can be given"
        )
    rng = np.random.default_rng(seed)
    # Rows of a larger weight have smaller residuals; those of a new row are for the weight one.
    scale = 1.0 if problem.weights is None else np.sqrt(problem.weights)
    residual = problem.residuals(theta) * scale
    weights: Array | None = None
    if kind == "pairs":
        weights = _counts(rng, draws, groups, n)
        noise = rng.choice(residual, draws) * np.sqrt(n / (n - p))
        target = problem.target
    else:
        # Drawing the variance too gives intervals the width of Student's t.
        sigma = np.sqrt(np.sum(residual**2) / rng.chisquare(n - p, draws))
        fitted = problem.target - residual / scale
        target = fitted + sigma[:, None] * rng.standard_normal((draws, n)) / scale
        noise = sigma * rng.standard_normal(draws)
    start = np.repeat(theta[None], draws, axis=0)
    fits = problem.minimize(start, target=target, weights=weights, tolerance=1e-8)
    params = pd.DataFrame(problem.natural(fits.theta), columns=list(problem.form.params))
    return Draws(params, fits.theta, noise, kind)


def _counts(rng: np.random.Generator, draws: int, groups: Array | None, rows: int) -> Array:
    """How often each resample holds each row; rows of one group come and go together."""
    if groups is None:
        return rng.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(float)
    _, member = np.unique(groups, return_inverse=True)
    count = member.max() + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    return drawn[:, member].astype(float)


def sensitivity(
    problem: Problem, theta: Array, deltas: Sequence[float], drop: Sequence[int]
) -> pd.DataFrame:
    """The parameters with other values of delta, and without the highest losses.

    Args:
        problem: what was fitted.
        theta: the fitted internal parameters, shape (p,).
        deltas: values of the Huber delta.
        drop: numbers of the highest losses to leave out; too high ones are ignored.

    Returns:
        a row per change: its name, the rows that were fitted, the parameters.
    """
    rows = len(problem.target)
    rank = pd.Series(problem.target).rank(ascending=False, method="first").to_numpy()
    cases: list[tuple[str, float, Array]] = [(f"delta={d:g}", d, np.ones(rows)) for d in deltas]
    cases += [
        (f"without the {k} highest", problem.delta, np.asarray(rank > k, dtype=np.float64))
        for k in drop
        if rows - k > problem.free
    ]
    starts = np.concatenate([theta[None], problem.starts()])
    found = []
    for name, delta, weight in cases:
        fits = problem.minimize(starts, delta=delta, weights=weight[None])
        best = fits.theta[[int(np.argmin(fits.objective))]]
        params = dict(zip(problem.form.params, problem.natural(best)[0], strict=True))
        found.append({"change": name, "rows": int(weight.sum())} | params)
    return pd.DataFrame(found)
