"""Where a loss curve over a hyperparameter has its minimum, and how sure that is.

The curve comes out of a sweep: a coarse or fine grid, few seeds, and on one side often a cliff
where training diverges. A smooth curve (`bowl`) is laid through the points around the lowest
(`window`), and the minima of all curves that fit as well are the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from paramz.analysis.bowl import Bowl, Place
from paramz.analysis.columns import Array
from paramz.analysis.minimum import minimum_at
from paramz.analysis.window import (
    EQUAL,
    foreground,
    mean_over_seeds,
    rival_of,
    spans,
)

# What noise makes of losses beyond it, or below its inverse, has squares that no float holds.
LARGEST = 1e100
# An interval this wide, in octaves, is a plateau's.
PLATEAU = 2.0


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
        flag: ``""`` for a bracketed minimum, ``"edge"`` at an end of the grid, or where it
            may lie beyond one, ``"cliff"`` where a neighbour diverged or lies far higher than the
            other side of the bowl, ``"two minima"`` where another one is as low, ``"plateau"``
            where the losses single out no region.
        interval: what the interval was made from: ``"seeds"``, ``"residuals"`` (one seed: how much
            the optimum moves between seeds was not seen) or ``"grid"`` (half a step).
        noise: standard deviation of one loss about the curve of its seed; NaN where unknown.
        draws: minima of curves that fit as well, shape (draws,); at an end of the grid where such a
            curve still falls there.
        compared: the same, for how far the optimum lies from those of other scales, shape (draws,).
        stiff: the same of curves that are nearly parabolas, by which scales are compared whose
            minima are not clear.
        apart: standard error of x from how far the optima of seeds lie apart beyond noise.
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
    compared: Array
    stiff: Place
    apart: float
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
        ValueError: no grid point is free of diverged runs, or squares of the losses do not fit into
            floating-point numbers.

    >>> x = np.arange(-8.0, -2.0)
    >>> found = find_optimum(x, 3 + 0.1 * (x[None] + 5.3) ** 2)
    >>> round(found.x, 2), found.grid, found.flag
    (-5.3, -5.0, '')
    """
    mean = mean_over_seeds(losses)
    if not np.isfinite(mean).any():
        raise ValueError("every run diverged: the sweep needs smaller values")
    best = int(np.argmin(mean))
    sizes = np.abs(mean[np.isfinite(mean)])
    if abs(mean[best]) > LARGEST or 0 < sizes.max() < 1 / LARGEST:
        raise ValueError(
            f"losses of about {mean[best]:.2g}: their squares do not fit into floating-point "
            "numbers. Divide all losses by one number, which moves no optimum"
        )
    if spans(x, losses, mean):
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
    smooth, at, error = foreground(x, losses, mean)
    one = minimum_at(x, losses, smooth, at, error, draws, rng)
    sample, compared, stiff = one.place.draws, one.compared.draws, one.stiff.draws
    flag = one.flag
    rival = rival_of(smooth, at, error)
    if rival is not None:
        flag = "two minima"
        gap = smooth[rival] - smooth[at]
        if gap <= EQUAL * error:
            chance = 0.5 * math.erfc(gap / (2 * error)) if error > 0 else 0.5
            other = minimum_at(x, losses, smooth, rival, error, draws, rng)
            there = rng.random(draws) < chance
            sample = np.where(there, other.place.draws, sample)
            compared = np.where(there, other.compared.draws, compared)
            stiff = np.where(there, other.stiff.draws, stiff)
    tail = (1 - level) / 2
    lo, hi = np.quantile(sample, [tail, 1 - tail])
    where = one.place.x
    lo, hi = min(lo, where), max(hi, where)
    if np.mean(sample <= x[0]) > tail:
        lo = -np.inf
    if np.mean(sample >= x[-1]) > tail:
        hi = np.inf
    if np.isinf(lo) and np.isinf(hi):
        flag = "plateau"
    elif np.isinf(lo) or np.isinf(hi) or where in (x[0], x[-1]):
        flag = "edge"
    elif not flag and hi - lo >= max(PLATEAU, 3 * float(np.diff(x).min())):
        flag = "plateau"
    lowest, curvature, noise = float(smooth[at]), math.nan, math.nan
    if one.bowl is not None:
        # Only those that it runs through: a cliff beside them says nothing of its height.
        inside = np.isin(x, one.bowl.x) & np.isfinite(mean)
        lowest = float(np.mean(mean[inside] - one.bowl.at(x[inside])))
        curvature, noise = one.bowl.curvature, one.bowl.noise
    return Optimum(
        where,
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
        compared,
        Place(one.stiff.x, stiff),
        one.apart,
        one.bowl,
    )
