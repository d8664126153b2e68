"""Optima of bowls that may change their shape with scale.

Stiff curves, nearly parabolas, put a minimum where their shape has it: all bowls of one shape are
off by the same, which is no drift. Where shapes differ, so do the differences between the minima of
free and of stiff curves. How much they do is not known: it is averaged over, weighted by how well
it explains these differences beside their noise (a random effect, as in a meta-analysis).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.curves import Curve

# By how much, in octaves, the shapes of one sweep may move its minima apart (standard deviation),
# and how likely each is beforehand; the first is that of bowls that are alike.
APART = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.5])
PRIOR = np.array([0.2, 0.16, 0.16, 0.16, 0.16, 0.16])
# No minimum is known better than this, in octaves.
_FINEST = 0.005


def half_spread(draws: Array) -> float:
    """Half of what the middle 68 % of draws span."""
    low, high = np.quantile(draws, [0.16, 0.84])
    return float(high - low) / 2


def comparable(curves: Sequence[Curve]) -> tuple[Array, Array]:
    """Where the minima of curves are when they are compared with each other.

    Args:
        curves: of one sweep, two or more.

    Returns:
        the minima, shape (curves,), and those of all curves that fit as well, shape (draws,
        curves).
    """
    stiff = np.array([c.optimum.stiff.x for c in curves])
    drawn = np.stack([c.optimum.stiff.draws for c in curves], axis=1)
    free = np.array([c.optimum.x for c in curves])
    ends = np.array([[c.x[0], c.x[-1]] for c in curves]).T
    inside = (np.minimum(stiff, free) > ends[0]) & (np.maximum(stiff, free) < ends[1])
    if inside.sum() < 2:
        return stiff, drawn
    own = np.array([half_spread(c.optimum.stiff.draws) for c in curves])
    noise = np.array([half_spread(c.optimum.draws) for c in curves]) ** 2 - own**2
    noise = np.maximum(noise, (own / 2) ** 2 + _FINEST**2)
    weight, shift, left = _effects((free - stiff)[inside], noise[inside])
    moved, about = drawn.copy(), stiff.copy()
    about[inside] += weight @ shift
    rng = np.random.default_rng(0)
    pick = rng.choice(len(APART), size=len(drawn), p=weight)
    shake = left[pick] * rng.standard_normal((len(drawn), len(shift.T)))
    moved[:, inside] += shift[pick] + shake
    # What lies at an end of its grid is a bound, and stays one.
    seen = (drawn > ends[0]) & (drawn < ends[1])
    return about, np.where(seen, np.clip(moved, *ends), drawn)


def _effects(gap: Array, noise: Array) -> tuple[Array, Array, Array]:
    """What shapes do to each minimum, above what they do to all.

    Args:
        gap: minima of free curves less those of stiff ones, shape (curves,).
        noise: variance of each, likewise.

    Returns:
        how likely each of `APART` is, what is expected of each curve under it, shape (sizes,
        curves), and the standard deviation that is left, likewise.
    """
    variance = APART[:, None] ** 2 + noise
    total = (1 / variance).sum(axis=1)
    away = gap - ((gap / variance).sum(axis=1) / total)[:, None]
    score = np.log(PRIOR) - 0.5 * (
        np.log(variance).sum(axis=1) + np.log(total) + (away**2 / variance).sum(axis=1)
    )
    weight = np.exp(score - score.max())
    share = APART[:, None] ** 2 / variance
    return weight / weight.sum(), share * away, np.sqrt(share * noise)
