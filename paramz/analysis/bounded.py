"""Straight lines through optima, some of which are only bounds.

An optimum at the end of its grid says that the true one lies there or beyond. It pulls the line
only where the line would contradict it (as in the likelihood of Tobin 1958). Where fewer than two
optima were seen, the slope has bounds and no value.
"""

from __future__ import annotations

import numpy as np

from paramz.analysis.columns import Array

# Rounds in which bounds enter or leave a fit; with ten scales, three are common.
_ROUNDS = 12


def sides_of(positions: Array, ends: Array) -> Array:
    """1 where the true optimum lies at a position or above, -1 where at it or below, else 0."""
    return np.asarray((positions >= ends[1]) * 1.0 - (positions <= ends[0]))


def fit_all(u: Array, positions: Array, sides: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Least and greatest slope of each draw, and its height; they differ where it is not known."""
    draws = len(positions)
    lows, highs, heights = (np.full(draws, np.nan) for _ in range(3))
    seen = (sides == 0).sum(axis=1) >= 2
    if seen.any():
        slope, height = fit_line(u, positions[seen], sides[seen], weight)
        lows[seen] = highs[seen] = slope
        heights[seen] = height
    if not seen.all():
        lows[~seen], highs[~seen] = _bounds(u, positions[~seen], sides[~seen])
    return lows, highs, heights


def fit_line(u: Array, positions: Array, sides: Array, weight: Array) -> tuple[Array, Array]:
    """Slope, and height at zero; bounds are used where the line violates them."""
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
    return slope, height


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
