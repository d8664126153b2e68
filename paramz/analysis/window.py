"""Which points of a loss curve say where its minimum is.

Points enter by their loss: all that lie within some thirty times the noise of the minimum, and
never one behind a cliff, where training becomes unstable.
"""

from __future__ import annotations

import math

import numpy as np

from paramz.analysis.columns import Array, Mask
from paramz.analysis.seeds import residuals

# The window: points whose loss is within this many standard errors of the minimum ...
WINDOW = 30.0
# ... and in any case this many on either side of the best, and those within this many octaves.
LEAST, REACH = 2, 2.0
# Grid points nearer than this, in octaves, are averaged before the lowest is looked for.
_SMOOTH = 0.3
# The noise is taken from the points within so many octaves of the best one, or from so many ...
_AROUND, _NEAR = 3.0, 9
# ... and of these from the lower ones, this share.
_LOW = 7 / 9
# A point this many times higher than the one a step farther on the other side is behind a cliff: on
# a parabola it is never higher at all.
CLIFF = 3.0
# A rise from the end of a grid is a cliff's where it is this many standard errors, goes on by no
# more than this share of it per octave, and no other point lies lower than this share. (Without the
# last, one flat and noisy curve in three was taken for one, with one seed.)
AT_ONCE, ON, STAYS = 4.0, 0.5, 0.5
# Two minima are near-equal where they differ by less than this many standard errors, or by less
# than this share of the barrier between them.
EQUAL, SHARE = 3.0, 0.05
# Losses of one side are behind a cliff where the gap below them is this many times as large as what
# lies below it (on a grid, heights of a parabola leave none of more than three times, but above two
# points), and the second of them is at most so many gaps up, where a wall would go on rising; or
# where the gap is as large as no wall has it.
FAR, FAR_OF_TWO, LEVEL, HUGE = 4.0, 30.0, 2.0, 100.0
# Losses of which the largest near the minimum is this many times the lowest are fitted in the
# logarithm, because their noise grows with them.
SPAN = 2.0


def mean_over_seeds(losses: Array) -> Array:
    """Mean loss at each grid point, without the effects of which seeds ran there.

    Args:
        losses: shape (seeds, grid); inf marks a diverged run, NaN one that does not exist.

    Returns:
        shape (grid,); inf where a seed diverged or none ran.

    >>> mean_over_seeds(np.array([[3.0, 2.0, 3.0], [np.nan, 4.0, 5.0]]))
    array([4., 3., 4.])
    """
    there = ~np.isnan(losses)
    count = there.sum(axis=0)
    total = np.where(there, losses, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    alive = np.isfinite(mean)
    if there[:, alive].all() or len(losses) < 2:
        return np.asarray(mean)
    # Seeds are told apart by the lower half: where losses are high, so are their differences.
    low = alive & (mean <= np.median(mean[alive]))
    part = losses[:, low]
    present = ~np.isnan(part)
    known = present.any(axis=1)
    offset = np.zeros(len(losses))
    for _ in range(30):
        columns = np.nanmean(part[known] - offset[known, None], axis=0)
        offset[known] = np.nanmean(part[known] - columns, axis=1)
        offset[known] -= offset[known].mean()
    shift = np.where(there, offset[:, None], 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.asarray(mean - shift)


def smoothed(x: Array, mean: Array) -> Array:
    """Means over neighbours within `_SMOOTH`; points that diverged stay as they are."""
    near = (np.abs(x[:, None] - x) <= _SMOOTH) & np.isfinite(mean)
    # The same number on either side, or a slope would be taken for a difference.
    side = np.minimum(np.triu(near, 1).sum(axis=1), np.tril(near, -1).sum(axis=1))
    order = np.arange(len(x))
    near &= np.abs(order[:, None] - order) <= side[:, None]
    total = near @ np.where(np.isfinite(mean), mean, 0.0)
    smooth = total / np.maximum(near.sum(axis=1), 1)
    return np.where(np.isfinite(mean), smooth, np.inf)


def standard_error(x: Array, losses: Array, smooth: Array, at: int) -> float:
    """Standard error of one mean loss near the minimum; zero where it cannot be known."""
    alive = np.flatnonzero(np.isfinite(smooth))
    count = max(_NEAR, int((np.abs(x[alive] - x[at]) <= _AROUND).sum()))
    near = alive[np.argsort(np.abs(alive - at), kind="stable")[:count]]
    # The lower ones: behind a cliff there is more noise.
    order = np.argsort(smooth[near], kind="stable")
    low = np.sort(near[order[: math.ceil(_LOW * len(near) - 1e-9)]])
    part = losses[:, low]
    part = part[(~np.isnan(part)).any(axis=1)]
    there = ~np.isnan(part)
    seeds = there.sum() / len(low)
    freedom = int(there.sum()) - len(part) - len(low) + 1
    if len(part) > 1 and freedom >= 4:
        return float(np.sqrt(np.nansum(residuals(part) ** 2) / freedom / seeds))
    if len(low) < 4:
        return 0.0
    # Third differences, which no parabola has; the lower of their medians does not see one step.
    sets = np.lib.stride_tricks.sliding_window_view
    apart = sets(x[low], 4)[:, :, None] - sets(x[low], 4)[:, None, :]
    apart[:, np.arange(4), np.arange(4)] = 1.0
    weight = 1 / apart.prod(axis=2)
    weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True))
    third = (weight * sets(mean_over_seeds(losses)[low], 4)).sum(axis=1)
    return float(np.quantile(np.abs(third), 0.5, method="lower") / 0.6745)


def foreground(x: Array, losses: Array, mean: Array) -> tuple[Array, int, float]:
    """What a minimum is looked for in.

    Args:
        x: increasing grid, shape (grid,).
        losses: shape (seeds, grid); inf marks a diverged run, NaN one that does not exist.
        mean: means over seeds, shape (grid,).

    Returns:
        smoothed means, inf behind a cliff that hides the noise; the lowest grid point; the standard
        error of one mean loss near it.
    """
    smooth = smoothed(x, mean)
    at = lowest_of(smooth)
    error = standard_error(x, losses, smooth, at)
    cliff = _behind_a_cliff(mean, error)
    if cliff.any():
        smooth = smoothed(x, np.where(cliff, np.inf, mean))
        at = lowest_of(smooth)
        error = standard_error(x, losses, smooth, at)
    return smooth, at, error


def _behind_a_cliff(mean: Array, error: float) -> Mask:
    """Points so far above all others that they would be taken for noise."""
    order = np.argsort(mean, kind="stable")
    height = mean[order] - mean[order[0]]
    alive = int(np.isfinite(height).sum())
    for count in range(2, alive - 1):
        spread, gap = height[count - 1], height[count] - height[count - 1]
        # Else the window does not reach that high.
        hidden = spread > 0 and WINDOW * error > gap
        above = order[count:alive]
        higher = (above > order[:count].max()).all()
        # Of two points at the lower side a bowl's wall, or a loss that is not trained yet, may look
        # like a cliff: they are as low as each other where the minimum is between them.
        one_side = higher or (count > 2 and (above < order[:count].min()).all())
        level = height[count + 1] - height[count - 1] < LEVEL * gap
        least = HUGE if not level else FAR_OF_TWO if count == 2 else FAR
        if hidden and one_side and gap > least * spread and (level or count > 2):
            return np.isin(np.arange(len(mean)), above)
    return np.zeros(len(mean), dtype=bool)


def window_around(
    x: Array, smooth: Array, at: int, height: float, reach: float, most: int = 10**6
) -> tuple[int, int, list[bool]]:
    """First and last grid point of the window, and on which side a cliff is the next point."""
    above = smooth - smooth[at]
    ends, cliffs = [at, at], [False, False]
    for side, step in enumerate((-1, 1)):
        for distance in range(1, min(len(x), most + 1)):
            here = at + step * distance
            if not 0 <= here < len(x):
                break
            if distance == 1 and not 0 <= at - step < len(x):
                # No other side to compare with, but what follows.
                cliffs[side] = _rises_at_once(x[here::step] - x[at], above[here::step], height)
                if cliffs[side]:
                    break
            # Where both fall off the grid, the last point on the other side has to do.
            mirror = min(max(at - step * (distance + 1), 0), len(x) - 1)
            bowl = above[mirror] if step * (at - mirror) >= 2 else np.inf
            # With noise the lowest point may not be the nearest to the minimum.
            if above[here] > CLIFF * max(bowl + 0.1 * height, height / CLIFF**2) or (
                np.isinf(above[here])
            ):
                cliffs[side] = distance == 1
                break
            near = distance <= LEAST or abs(x[here] - x[at]) <= reach
            if above[here] > height and not near:
                break
            ends[side] = here
    return ends[0], ends[1], cliffs


def _rises_at_once(away: Array, above: Array, height: float) -> bool:
    """Whether losses rise at once from the end of a grid and then no more, as no bowl does.

    Args:
        away: distances of the other points from the end of the grid, the nearest one first.
        above: by how much these are higher.
        height: of the window.
    """
    rise = above[0]
    if len(away) < 2 or not np.isfinite(rise) or rise < AT_ONCE * height / WINDOW:
        return False
    later = (above[1:3] - rise) / np.abs(away[1:3] - away[0])
    return bool((later < ON * rise / abs(away[0])).all() and (above > STAYS * rise).all())


def lowest_of(smooth: Array) -> int:
    """The grid point with the lowest loss, the middle one of several that are equal."""
    at = np.flatnonzero(smooth == smooth.min())
    return int(at[len(at) // 2])


def window_of(x: Array, losses: Array, mean: Array, reach: float) -> slice:
    """The grid points of the window around the lowest, and all within a reach in octaves.

    Args:
        x: increasing grid, shape (grid,).
        losses: shape (seeds, grid); inf marks a diverged run, NaN one that does not exist.
        mean: means over seeds, shape (grid,).
        reach: how far from the lowest point, in octaves, points are in the window in any case.
    """
    smooth, at, error = foreground(x, losses, mean)
    first, last, _ = window_around(x, smooth, at, WINDOW * error, reach)
    return slice(first, last + 1)


def rival_of(smooth: Array, at: int, error: float) -> int | None:
    """Another minimum that is as low, with a barrier in between; None where there is none."""
    found = None
    top = float(smooth[np.isfinite(smooth)].max())
    for side in (range(at + 1, len(smooth)), range(at - 1, -1, -1)):
        barrier = -np.inf
        for here in side:
            if np.isinf(smooth[here]):
                barrier = top
                continue
            gap = smooth[here] - smooth[at]
            wall = barrier - smooth[here]
            low = gap <= max(EQUAL * error, SHARE * wall)
            if (
                low
                and wall > (EQUAL + 1) * error
                and (found is None or smooth[here] < smooth[found])
            ):
                found = here
            barrier = max(barrier, smooth[here])
    return found


def spans(x: Array, losses: Array, mean: Array) -> bool:
    """Whether losses near the minimum differ so much that their noise does, too, and have logs."""
    best = int(np.argmin(mean))
    near = mean[(np.abs(x - x[best]) <= REACH) & np.isfinite(mean)]
    return bool(mean[best] > 0 and near.max() > SPAN * mean[best]) and above_zero(losses)


def above_zero(losses: Array) -> bool:
    """Whether all losses have logarithms; those of runs that do not exist, NaN, do not count."""
    return not bool((losses <= 0).any())
