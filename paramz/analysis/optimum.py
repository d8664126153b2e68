"""Where a loss curve over a hyperparameter has its minimum, and how sure that is.

The curve comes out of a sweep: a coarse or fine grid, few seeds, and on one side often a cliff
where training diverges. A smooth curve (`bowl`) is laid through the points around the lowest
(`window`), and the minima of all curves that fit as well are the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from paramz.analysis.bowl import Bowl, fit_bowl, seeds_apart
from paramz.analysis.columns import Array
from paramz.analysis.window import (
    EQUAL,
    LEAST,
    REACH,
    WINDOW,
    mean_over_seeds,
    rival_of,
    smoothed,
    spans,
    standard_error,
    window_around,
)

# A curve that runs this many standard errors above the lowest point does not fit.
MISS = 4.0
# An interval this wide, in octaves, is a plateau's.
PLATEAU = 2.0
# On bowls whose shape is as unknown as is assumed, intervals would be right; on those that were
# tried they are too wide by this factor. It was set, with `SKEW` of `bowl`, on parabolas with and
# without a wall, of height 0.006, 0.03 and 0.15 per octave squared, and not changed after that;
# benchmarks/transfer_power.py measures what it gives on others.
CALIBRATED = 0.85


@dataclass(frozen=True, eq=False)
class Optimum:
    """The minimum of one curve over x = log2 of the hyperparameter.

    Attributes:
        x: position of the minimum of the smooth curve.
        lo: lower end of its interval; -inf where the grid ends before the loss rises.
        hi: upper end; inf likewise.
        grid: grid point with the lowest mean loss.
        loss: mean loss there.
        level: loss of the smooth curve at its minimum.
        curvature: second derivative of the smooth curve, in loss per octave squared.
        flag: ``""`` for a bracketed minimum, ``"edge"`` at an end of the grid, ``"cliff"`` where a
            neighbour diverged or lies far higher than the other side of the bowl, ``"two minima"``
            where another one is as low, ``"plateau"`` where the losses single out no region.
        interval: what the interval was made from: ``"seeds"``, ``"residuals"`` (one seed: how much
            the optimum moves between seeds was not seen) or ``"grid"`` (half a step).
        noise: standard deviation of one loss about the curve of its seed; NaN where unknown.
        draws: minima of curves that fit as well, shape (draws,); at an end of the grid where such a
            curve still falls there.
        bowl: the curves; None where there are too few points for one.
    """

    x: float
    lo: float
    hi: float
    grid: float
    loss: float
    level: float
    curvature: float
    flag: str
    interval: str
    noise: float
    draws: Array
    bowl: Bowl | None


def find_optimum(
    x: Array, losses: Array, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Optimum:
    """The minimum of seed-averaged losses over a grid, with an interval.

    Seeds have effects of their own (some seeds are better at every learning rate), so that missing
    runs do no harm. With two or more seeds the interval holds how far their optima lie apart.

    Args:
        x: increasing grid, shape (grid,), in log2 of the hyperparameter.
        losses: shape (seeds, grid); inf marks a diverged run, NaN one that does not exist.
        draws: how many curves are drawn.
        level: coverage of the interval.
        seed: seed of the draws.

    Returns:
        the optimum.

    Raises:
        ValueError: no grid point is free of diverged runs.

    >>> x = np.arange(-8.0, -2.0)
    >>> found = find_optimum(x, 3 + 0.1 * (x[None] + 5.3) ** 2)
    >>> round(found.x, 2), found.grid, found.flag
    (-5.3, -5.0, '')
    """
    mean = mean_over_seeds(losses)
    if not np.isfinite(mean).any():
        raise ValueError("every run diverged: the sweep needs smaller values")
    best = int(np.argmin(mean))
    if spans(x, mean, best):
        found = _find(x, np.log(losses), np.log(mean), draws, level, np.random.default_rng(seed))
        found = _in_losses(found)
    else:
        found = _find(x, losses, mean, draws, level, np.random.default_rng(seed))
    return replace(found, grid=float(x[best]), loss=float(mean[best]))


def _in_losses(found: Optimum) -> Optimum:
    """An optimum of logarithms, its curves in losses."""
    level = math.exp(found.level)
    bowl = found.bowl
    if bowl is not None:
        own = bowl.curves - bowl.curves.min(axis=1, keepdims=True)
        bowl = replace(
            bowl,
            mean=level * np.expm1(bowl.mean),
            curves=level * np.expm1(own),
            curvature=level * bowl.curvature,
            noise=level * bowl.noise,
        )
    return replace(
        found,
        level=level,
        bowl=bowl,
        curvature=level * found.curvature,
        noise=level * found.noise,
    )


def _find(
    x: Array, losses: Array, mean: Array, draws: int, level: float, rng: np.random.Generator
) -> Optimum:
    """The optimum, all in the units of these losses."""
    smooth = smoothed(x, mean)
    # The middle one of several that are equal.
    lowest_at = np.flatnonzero(smooth == smooth.min())
    at = int(lowest_at[len(lowest_at) // 2])
    error = standard_error(x, losses, smooth, at)
    one = _one_minimum(x, losses, smooth, at, error, draws, rng)
    sample, flag = one.draws, one.flag
    rival = rival_of(smooth, at, error)
    if rival is not None:
        flag = "two minima"
        gap = smooth[rival] - smooth[at]
        if gap <= EQUAL * error:
            chance = 0.5 * math.erfc(gap / (2 * error)) if error > 0 else 0.5
            other = _one_minimum(x, losses, smooth, rival, error, draws, rng)
            sample = np.where(rng.random(draws) < chance, other.draws, sample)
    tail = (1 - level) / 2
    lo, hi = np.quantile(sample, [tail, 1 - tail])
    lo, hi = min(lo, one.x), max(hi, one.x)
    if np.mean(sample <= x[0]) > tail:
        lo = -np.inf
    if np.mean(sample >= x[-1]) > tail:
        hi = np.inf
    if np.isinf(lo) and np.isinf(hi):
        flag = "plateau"
    elif np.isinf(lo) or np.isinf(hi) or one.x in (x[0], x[-1]):
        flag = "edge"
    elif not flag and hi - lo >= max(PLATEAU, 3 * float(np.diff(x).min())):
        flag = "plateau"
    lowest, curvature, noise = float(smooth[at]), math.nan, math.nan
    if one.bowl is not None:
        fine = one.bowl.fine
        inside = (x >= fine[0]) & (x <= fine[-1]) & np.isfinite(mean)
        lowest = float(np.mean(mean[inside] - np.interp(x[inside], fine, one.bowl.mean)))
        curvature, noise = one.bowl.curvature, one.bowl.noise
    return Optimum(
        one.x,
        float(lo),
        float(hi),
        math.nan,
        math.nan,
        lowest,
        curvature,
        flag,
        one.interval,
        noise,
        sample,
        one.bowl,
    )


@dataclass(frozen=True, eq=False)
class _Minimum:
    """The minimum around one grid point."""

    x: float
    flag: str
    interval: str
    draws: Array
    bowl: Bowl | None


def _one_minimum(
    x: Array,
    losses: Array,
    smooth: Array,
    at: int,
    error: float,
    draws: int,
    rng: np.random.Generator,
) -> _Minimum:
    """The minimum of the curve through the window around a grid point."""
    window = window_around(x, smooth, at, WINDOW * error, REACH)
    found = _in_window(x, losses, smooth, at, window, draws, rng)
    if found.bowl is not None and _misses(x, smooth, at, found.bowl, error):
        # A kink that no smooth curve has, such as the foot of a cliff.
        window = window_around(x, smooth, at, WINDOW * error, 0.0, LEAST)
        found = _in_window(x, losses, smooth, at, window, draws, rng)
    return found


def _misses(x: Array, smooth: Array, at: int, bowl: Bowl, error: float) -> bool:
    """Whether the curve runs far above the lowest point."""
    inside = (x >= bowl.fine[0]) & (x <= bowl.fine[-1]) & np.isfinite(smooth)
    rest = smooth[inside] - np.interp(x[inside], bowl.fine, bowl.mean)
    return bool(rest.mean() + np.interp(x[at], bowl.fine, bowl.mean) - smooth[at] > MISS * error)


def _in_window(
    x: Array,
    losses: Array,
    smooth: Array,
    at: int,
    window: tuple[int, int, list[bool]],
    draws: int,
    rng: np.random.Generator,
) -> _Minimum:
    """The minimum of the curve through a window."""
    first, last, cliffs = window
    ends = (x[max(first - cliffs[0], 0)], x[min(last + cliffs[1], len(x) - 1)])
    flag = "cliff" if any(cliffs) else ""
    inside = losses[:, first : last + 1]
    inside = inside[(~np.isnan(inside)).any(axis=1)]
    runs = int((~np.isnan(inside)).sum())
    seeds = len(inside)
    if last - first < 2 or runs - seeds < 3:
        # As many points as a parabola has coefficients: half a step, and not over an end.
        return _by_grid(x, smooth, at, ends, flag, draws, rng)
    bowl = fit_bowl(x[first : last + 1], inside, ends, draws, rng)
    apart = seeds_apart(x[first : last + 1], inside, bowl)
    # Finer than a hundredth of a step of the grid nothing is claimed.
    apart = math.hypot(apart, 0.01 * float(np.diff(x[first : last + 1]).mean()))
    # At an end of the grid that is no cliff the loss may go on falling.
    ended = (first == 0, last == len(x) - 1)
    inner = ((bowl.draws > x[0]) | (not ended[0])) & ((bowl.draws < x[-1]) | (not ended[1]))
    drawn = bowl.x + CALIBRATED * (bowl.draws - bowl.x) + apart * rng.standard_normal(draws)
    sample, where = np.where(inner, np.clip(drawn, *ends), bowl.draws), bowl.x
    for side, sign in enumerate((-1, 1)):
        if ended[side]:
            continue
        # The curve knows nothing of the foot of a cliff, which is as likely here as there; nor of
        # what is beyond the window where it still falls at its end.
        start = x[at] if cliffs[side] else ends[side]
        beyond = inner & (sign * (sample - start) >= 0)
        sample = np.where(beyond, x[at] + rng.random(draws) * (ends[side] - x[at]), sample)
        if sign * (where - start) >= 0:
            where = x[at]
    return _Minimum(float(where), flag, "seeds" if seeds > 1 else "residuals", sample, bowl)


def _by_grid(
    x: Array,
    smooth: Array,
    at: int,
    ends: tuple[float, float],
    flag: str,
    draws: int,
    rng: np.random.Generator,
) -> _Minimum:
    """The vertex through three points, or the best one, with half a step on either side."""
    left, right = max(at - 1, 0), min(at + 1, len(x) - 1)
    step = (x[right] - x[left]) / (right - left)
    where = x[at]
    if left < at < right and np.isfinite(smooth[[left, right]]).all() and not flag:
        fit = np.polyfit(x[left : right + 1] - x[at], smooth[left : right + 1], 2)
        if fit[0] > 0:
            where = x[at] - fit[1] / (2 * fit[0])
    sample = where + step * rng.uniform(-0.5, 0.5, draws)
    if at in (0, len(x) - 1):
        sample = np.full(draws, x[at])
    return _Minimum(float(where), flag, "grid", np.clip(sample, *ends), None)
