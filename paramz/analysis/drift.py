"""How the optimum moves with scale: the line through the optima, and what else it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paramz.analysis.bounded import fit_all, fit_line, sides_of
from paramz.analysis.columns import Array
from paramz.analysis.curves import Curve
from paramz.analysis.scatter import scatter_of, weights
from paramz.analysis.shapes import comparable, half_spread

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
            explain, at least 1. Where it is more, the interval allows for as much scatter beside
            the line, known as badly as so few scales tell it.
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
    ends = np.array([[c.x[0], c.x[-1]] for c in curves]).T
    sides = sides_of(found, ends)
    scatter = scatter_of(u, found, sides, spread)
    weight = weights(spread, scatter.beside)
    middle = float(u @ weight / weight.sum())
    slope, height = np.nan, np.nan
    if (sides == 0).sum() >= 2:
        slope, height = (a[0] for a in fit_line(u - middle, found, sides, weight))
    beside = scatter.draws(drawn.shape)
    lows, highs, _ = fit_all(u - middle, drawn + beside, sides_of(drawn, ends), weight)
    # How high the line lies is a question of where minima are, and not of how they move.
    free_x = np.array([[c.optimum.x for c in curves]])
    free = np.stack([c.optimum.draws for c in curves], axis=1)
    heights = fit_all(u - middle, free, sides_of(free, ends), weight)[2]
    stiff = np.stack([c.optimum.stiff.draws for c in curves], axis=1)
    if np.isfinite(slope) and (sides_of(free_x, ends) == 0).sum() >= 2:
        height = fit_line(u - middle, free_x, sides_of(free_x, ends), weight)[1][0]
    level = height if np.isfinite(height) else 0.0
    # Not interpolated: between two infinite draws that would not be a number.
    lo = float(np.quantile(lows, 0.025, method="lower"))
    hi = float(np.quantile(highs, 0.975, method="higher"))
    if np.isfinite(slope):
        lo, hi = min(lo, float(slope)), max(hi, float(slope))
    slopes = np.where(lows == highs, lows, np.nan)
    edges = sum(c.optimum.flag == "edge" for c in curves)
    drift = Drift(float(slope), lo, hi, edges, scatter.excess)
    share = weight / weight.sum()
    heights = level + shared(free, stiff, share) * (heights - level) + beside @ share
    return Line(drift, middle, float(height), slopes, heights)


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
