"""A smooth curve through noisy losses around their minimum, with all curves that fit as well.

The curve is a spline whose smooth limit is the parabola (`smooth`), and it may break in one place
(`breaks`), so that steep walls, lopsided bowls and kinked valleys bend it and noise does not.
Neither the noise of the losses, nor how strongly the curve bends, nor whether and where it breaks
is known. All are averaged over, weighted by how well they explain the losses, and what is left is a
distribution over curves. Losses of one seed share an offset of their own, which drops out.

There are two such averages. Curves that are free to bend tell where a minimum is: on a flat bowl
that is steeper on one side a parabola is biased. Stiff ones, nearly parabolas, tell how minima move
between scales: the bowls of one sweep are alike, so that all have this bias, and less noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramz.analysis.breaks import find_breaks
from paramz.analysis.columns import Array
from paramz.analysis.smooth import CHANGES, fit_smooth

# By how much bowls change their curvature per octave, in halves of the curvature: free ones by less
# than this in half of all cases, and stiff ones hardly ever by more than theirs.
STIFF, FREE = 1.2, 2.0
# How likely it is beforehand that a bowl is a parabola but for a break, and that it breaks.
PARABOLA, BREAK = 0.3, 0.97
# Noise below this share of the height of a bowl is rounding.
_EXACT = 1e-4
# Changes below this are a parabola's.
_LEAST = 0.01
# Optima of seeds that lie apart by up to this many times what noise explains are laid to noise.
CHANCE = 1.5
# Curves that are less likely than this are left out of the average.
_RARE = 1e-5
# Points of the fine grid on which a curve's minimum is looked for.
_FINE = 201


@dataclass(frozen=True, eq=False)
class Place:
    """Where a minimum is.

    Attributes:
        x: that of the average curve.
        draws: those of all curves that explain the losses as well, shape (draws,).
    """

    x: float
    draws: Array


@dataclass(frozen=True, eq=False)
class Bowl:
    """Curves through the losses between two positions, up to a constant.

    Attributes:
        x: positions of the losses, shape (points,).
        fine: positions, shape (fine,).
        mean: the average curve there, zero at its minimum, shape (fine,).
        curves: the curves there, each up to a constant, shape (draws, fine).
        place: their minima.
        stiff: the minima of curves that are nearly parabolas.
        plain: minimum of the parabola.
        curvature: second derivative of the average curve at its minimum.
        noise: standard deviation of one loss about the curve of its seed.
    """

    x: Array
    fine: Array
    mean: Array
    curves: Array
    place: Place
    stiff: Place
    plain: float
    curvature: float
    noise: float

    def at(self, x: Array) -> Array:
        """The average curve at positions between its ends, shape (positions,)."""
        return np.asarray(np.interp(x, self.fine, self.mean))


def fit_bowl(
    x: Array, losses: Array, ends: tuple[float, float], draws: int, rng: np.random.Generator
) -> Bowl:
    """The curves through losses over a window.

    Args:
        x: positions, shape (points,), three or more.
        losses: shape (seeds, points); NaN for a run that does not exist.
        ends: where the minimum is looked for: the window, or up to a cliff beside it.
        draws: how many curves to draw.
        rng: source of the draws.

    Returns:
        the curves.
    """
    fine = np.linspace(*ends, _FINE)
    smooth = fit_smooth(x, losses, fine)
    free = smooth.score + _free(smooth.change)
    kept, breaks = find_breaks(smooth, fine, free)
    free = free[kept]
    center = smooth.center + np.pad(smooth.parabola, (0, smooth.center.shape[1] - 2))
    root = smooth.root[kept]
    # Where a smooth curve explains all but rounding, a break would be made of rounding.
    exact = smooth.sigma[kept][np.argmax(free)] < _EXACT * np.ptp(losses[~np.isnan(losses)])
    beside = np.full(breaks.gain.shape, -np.inf) if exact else np.log(BREAK) + breaks.gain
    # One column for no break, then one for each.
    score = np.column_stack([free + np.log(1 - BREAK), free[:, None] + beside])
    weight = _weights(score)
    model, which = np.nonzero(weight[:, 1:] > _RARE)
    bent = breaks.curves(center[kept][model], breaks.size[model, which], model, which)
    share = weight[model, which + 1]
    average = smooth.at_fine @ (weight[:, 0] @ center[kept] + share @ bent[:, :-1])
    average += breaks.at_fine[:, which] @ (share * bent[:, -1])

    shake = rng.standard_normal((draws, 1, center.shape[1]))
    pick, which = np.divmod(rng.choice(weight.size, size=draws, p=weight.ravel()), weight.shape[1])
    theta = center[kept][pick] + (shake @ root[pick])[:, 0]
    broken, which = which > 0, np.maximum(which - 1, 0)
    size = breaks.size[pick, which] + breaks.error[pick, which] * rng.standard_normal(draws)
    moved = breaks.curves(theta, size, pick, which)
    theta = np.where(broken[:, None], moved[:, :-1], theta)
    size = np.where(broken, moved[:, -1], 0.0)
    curves = theta @ smooth.at_fine.T + (size * breaks.at_fine[:, which]).T

    # Stiff curves do without breaks.
    even = _weights(
        smooth.score - np.log1p((smooth.change / STIFF) ** 2) - 1e9 * (smooth.change < _LEAST)
    )
    pick = rng.choice(len(even), size=draws, p=even)
    stiff_curves = (center[pick] + (shake @ smooth.root[pick])[:, 0]) @ smooth.at_fine.T
    stiff = smooth.at_fine @ (even @ center)
    parabola = smooth.at_fine[:, :2] @ smooth.parabola
    where, curvature = minima(fine, np.stack([average, stiff, parabola]))
    if np.ptp(average) <= 1e-12 * max(np.abs(losses[np.isfinite(losses)]).max(), 1e-300):
        where = np.full(3, (x[0] + x[-1]) / 2)  # flat: no point is lower than another
    return Bowl(
        x,
        fine,
        average - average.min(),
        curves,
        Place(float(where[0]), minima(fine, curves)[0]),
        Place(float(where[1]), minima(fine, stiff_curves)[0]),
        float(where[2]),
        float(curvature[0]),
        float(np.exp(weight.sum(axis=1) @ np.log(smooth.sigma[kept]))),
    )


def _free(change: Array) -> Array:
    """Log of what speaks for each strength of bending beforehand."""
    # The middle of Cauchy's distribution, even in the change itself and not in its logarithm.
    own = CHANGES / (1 + (CHANGES / FREE) ** 2)
    own[CHANGES < _LEAST] = 0.0
    own *= (1 - PARABOLA) / own.sum()
    own[CHANGES < _LEAST] = PARABOLA
    return np.log(np.interp(change, CHANGES, own))


def _weights(score: Array) -> Array:
    weight = np.exp(score - score.max())
    return np.asarray(weight / weight.sum())


def seeds_apart(x: Array, losses: Array, bowl: Bowl) -> float:
    """Standard error of the optimum from how far the optima of seeds lie apart beyond noise."""
    there = ~np.isnan(losses)
    use = there.sum(axis=1) >= 3
    if use.sum() < 2 or bowl.curvature <= 0:
        return 0.0
    rest = losses - np.interp(x, bowl.fine, bowl.mean)
    rest = np.where(there, rest, 0.0)[use]
    there = there[use]
    count = there.sum(axis=1, keepdims=True)
    u = np.where(there, x - (there @ x)[:, None] / count, 0.0)
    spread = (u**2).sum(axis=1)
    slopes = (u * rest).sum(axis=1) / spread
    excess = slopes.var(ddof=1) - CHANCE * bowl.noise**2 * np.mean(1 / spread)
    return float(np.sqrt(max(excess, 0.0) / use.sum()) / bowl.curvature)


def minima(x: Array, y: Array) -> tuple[Array, Array]:
    """Position of the minimum of each curve, between its points, and its curvature.

    Args:
        x: positions, evenly spaced, shape (points,).
        y: curves, shape (curves, points); inf where one has no points.
    """
    at = np.argmin(y, axis=1)
    rows = np.arange(len(y))
    inner = np.clip(at, 1, len(x) - 2)
    step = x[1] - x[0]
    left, here, right = (y[rows, inner + k] for k in (-1, 0, 1))
    ended = np.isinf(left) | np.isinf(right)
    left, right = np.where(ended, here, left), np.where(ended, here, right)
    bend = left - 2 * here + right
    slope = (right - left) / 2
    shift = np.where((inner == at) & (bend > 0), -slope / np.where(bend > 0, bend, 1.0), 0.0)
    return x[at] + step * np.clip(shift, -1, 1), bend / step**2
