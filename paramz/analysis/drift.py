"""How the optimum moves with scale: a line through optima, some of which are only bounds.

An optimum at the end of its grid says that the true one lies there or beyond. It pulls the line
only where the line would contradict it (as in the likelihood of Tobin 1958). Where fewer than two
optima were seen, the slope has bounds and no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array, Mask
from paramz.analysis.curves import Curve
from paramz.analysis.shapes import comparable, half_spread

# Rounds in which bounds enter or leave a fit; with ten scales, three are common.
_ROUNDS = 12
# No optimum is known better than this, in octaves, when it is asked whether all lie on a line.
FINEST = 0.02
# How much of what stiff curves do not explain of a minimum's error all curves of a sweep share.
SHARED = 0.5


@dataclass(frozen=True)
class Drift:
    """How the optimum moves with scale, in octaves per doubling; a row of `Transfer.drift`.

    Attributes:
        slope: weighted least squares over the optima; NaN where fewer than two were seen.
        lo: lower end of its 95 % interval; -inf where nothing bounds it.
        hi: upper end; inf likewise.
        edges: how many of the optima lie at an end of their grid, or may lie beyond it.
        excess: how many times farther the optima lie from the line than their own intervals
            explain, at least 1; the interval is wider by this factor.
    """

    slope: float
    lo: float
    hi: float
    edges: int
    excess: float


@dataclass(frozen=True, eq=False)
class Line:
    """The line through the optima over log2 of the scale, and all that fit as well.

    Attributes:
        drift: its slope.
        middle: log2 of the scale at which heights are given.
        height: log2 of the best value there; NaN where fewer than two optima were seen.
        slopes: of the lines that fit as well, shape (draws,); NaN likewise.
        heights: theirs, shape (draws,).
    """

    drift: Drift
    middle: float
    height: float
    slopes: Array
    heights: Array

    def at(self, scale: float) -> tuple[float, float, float]:
        """Log2 of the best value at a scale, with the ends of its 95 % interval."""
        away = np.log2(scale) - self.middle
        known = np.isfinite(self.slopes + self.heights)
        if not known.any():
            return float("nan"), float("-inf"), float("inf")
        lo, hi = np.quantile((self.heights + self.slopes * away)[known], [0.025, 0.975])
        return float(self.height + self.drift.slope * away), float(lo), float(hi)


def line_of(curves: Sequence[Curve]) -> Line:
    """The line through the optima of curves, two or more, in order of scale."""
    u = np.log2([c.scale for c in curves])
    places, drawn = comparable(curves)
    found = places[None]
    spread = np.array([half_spread(d) for d in drawn.T])
    # Noise estimates of few points are noisy: half of each weight is what all curves have.
    weight = 1 / (spread**2 + np.median(spread) ** 2 + 1e-12)
    middle = float(u @ weight / weight.sum())
    ends = np.array([[c.x[0], c.x[-1]] for c in curves]).T
    sides = _sides(found, ends)
    if (sides == 0).sum() >= 2:
        slope, height, use = (a[0] for a in _fit(u - middle, found, sides, weight))
        excess = _excess(u - middle, found[0] - height, slope, spread, use & (sides[0] == 0))
    else:
        slope, height, excess = np.nan, np.nan, 1.0
    lows, highs, _ = _lines(u - middle, drawn, _sides(drawn, ends), weight)
    # How high the line lies is a question of where minima are, and not of how they move.
    free_x = np.array([[c.optimum.x for c in curves]])
    free = np.stack([c.optimum.draws for c in curves], axis=1)
    heights = _lines(u - middle, free, _sides(free, ends), weight)[2]
    stiff = np.stack([c.optimum.stiff.draws for c in curves], axis=1)
    if np.isfinite(slope) and (_sides(free_x, ends) == 0).sum() >= 2:
        height = _fit(u - middle, free_x, _sides(free_x, ends), weight)[1][0]
    center = slope if np.isfinite(slope) else 0.0
    level = height if np.isfinite(height) else 0.0
    lows, highs = (center + excess * (s - center) for s in (lows, highs))
    # Not interpolated: between two infinite draws that would not be a number.
    lo = np.quantile(lows, 0.025, method="lower")
    hi = np.quantile(highs, 0.975, method="higher")
    if np.isfinite(slope):
        lo, hi = min(lo, slope), max(hi, slope)
    slopes = np.where(lows == highs, lows, np.nan)
    edges = sum(c.optimum.flag == "edge" for c in curves)
    drift = Drift(float(slope), float(lo), float(hi), edges, float(excess))
    wider = excess * shared(free, stiff, weight / weight.sum())
    return Line(drift, middle, float(height), slopes, level + wider * (heights - level))


def shared(free: Array, stiff: Array, share: Array) -> float:
    """By how much a mean of minima is less sure than if their errors had nothing in common.

    Noise has not, but what the common shape does to one minimum it does to all. Stiff curves show
    what noise alone does.
    """
    spread = np.array([half_spread(d) for d in free.T])
    noise = np.minimum([half_spread(d) for d in stiff.T], spread)
    shape = np.sqrt(SHARED * (spread**2 - noise**2))
    alone = share**2 @ spread**2 + 1e-24
    return float(np.sqrt(1 + ((share @ shape) ** 2 - share**2 @ shape**2) / alone))


def _sides(positions: Array, ends: Array) -> Array:
    """1 where the true optimum lies at a position or above, -1 where at it or below, else 0."""
    return np.asarray((positions >= ends[1]) * 1.0 - (positions <= ends[0]))


def _lines(u: Array, positions: Array, sides: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Least and greatest slope of each draw, and its height; they differ where it is not known."""
    draws = len(positions)
    lows, highs, heights = (np.full(draws, np.nan) for _ in range(3))
    seen = (sides == 0).sum(axis=1) >= 2
    if seen.any():
        slope, height, _ = _fit(u, positions[seen], sides[seen], weight)
        lows[seen] = highs[seen] = slope
        heights[seen] = height
    if not seen.all():
        lows[~seen], highs[~seen] = _bounds(u, positions[~seen], sides[~seen])
    return lows, highs, heights


def _fit(u: Array, positions: Array, sides: Array, weight: Array) -> tuple[Array, Array, Mask]:
    """Slope, height at zero and what was used; bounds are used where the line violates them."""
    known = sides == 0
    use = known
    for _ in range(_ROUNDS):
        w = weight * use
        total = w.sum(axis=1)
        mean_u = (w @ u) / total
        mean = (w * positions).sum(axis=1) / total
        away = u - mean_u[:, None]
        slope = (w * away * positions).sum(axis=1) / (w * away**2).sum(axis=1)
        height = mean - slope * mean_u
        beyond = sides * (positions - height[:, None] - slope[:, None] * u) > 1e-12
        if (use == (known | beyond)).all():
            break
        use = known | beyond
    return slope, height, use


def _bounds(u: Array, positions: Array, sides: Array) -> tuple[Array, Array]:
    """Least and greatest slope of lines that respect all bounds, from pairs of them."""
    lows, highs = np.full(len(positions), -np.inf), np.full(len(positions), np.inf)
    for g in range(len(u)):
        for h in range(len(u)):
            if u[g] == u[h]:
                continue
            # The line runs at or above position g, and at or below position h.
            both = (sides[:, g] >= 0) & (sides[:, h] <= 0)
            ratio = (positions[:, g] - positions[:, h]) / (u[g] - u[h])
            if u[g] > u[h]:
                lows = np.where(both, np.maximum(lows, ratio), lows)
            else:
                highs = np.where(both, np.minimum(highs, ratio), highs)
    return np.minimum(lows, highs), np.maximum(lows, highs)


def _excess(u: Array, rest: Array, slope: float, spread: Array, use: Mask) -> float:
    """Birge's ratio: the root of chi squared over its degrees of freedom, at least 1."""
    freedom = int(use.sum()) - 2
    if freedom < 1:
        return 1.0
    error = np.maximum(spread, FINEST)
    chi = np.sum(((rest - slope * u) / error)[use] ** 2)
    return float(max(1.0, np.sqrt(chi / freedom)))
