"""The minimum of a loss curve around one point of the grid, by the curves through its window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from paramz.analysis.bowl import Bowl, Place, fit_bowl, seeds_apart
from paramz.analysis.columns import Array
from paramz.analysis.window import LEAST, REACH, WINDOW, window_around

# A curve that runs this many standard errors above the lowest point does not fit.
MISS = 4.0
# Intervals of stiff curves are too wide by this factor on bowls that are nearly parabolas. It was
# set, with `STIFF` of `bowl`, on parabolas with and without a wall, of height 0.006, 0.03 and 0.15
# per octave squared.
STIFFNESS = 0.85
# By how much, as a share of it, what free curves take for the effect of a shape on the minimum may
# be wrong, where minima are compared.
SHAPE_ERROR = 0.5
# By how much an interval is extended on the far side, in units of how far the minimum lies from
# that of stiff curves and from that of a parabola: averages shrink shapes, so that what they do
# not see of one lies farther on the same side ...
BEYOND_STIFF, BEYOND_PARABOLA = 1.0, 0.15
# ... and with so little beyond the far side, all that an interval may miss may lie beyond the near
# one. With one seed, where noise is hardly told from bends, it may not.
TAIL, NEAR = 0.025, 0.045
# Finer than this share of a step of the grid nothing is claimed.
FLOOR = 0.003


@dataclass(frozen=True, eq=False)
class Minimum:
    """The minimum around one grid point.

    Attributes:
        place: where it is.
        compared: the same, for how far it lies from the minima of other scales: its error is taken
            to be as large on either side.
        stiff: where it is if the curve is nearly a parabola.
        apart: standard error of all from how far the optima of seeds lie apart beyond noise.
        flag: ``"cliff"`` where a neighbour diverged or is far higher than the other side, else "".
        interval: what the draws were made from, as in `Optimum`.
        bowl: the curves; None where there are too few points for one.
    """

    place: Place
    compared: Place
    stiff: Place
    apart: float
    flag: str
    interval: str
    bowl: Bowl | None


def minimum_at(
    x: Array,
    losses: Array,
    smooth: Array,
    at: int,
    error: float,
    draws: int,
    rng: np.random.Generator,
) -> Minimum:
    """The minimum of the curve through the window around a grid point.

    Args:
        x: increasing grid, shape (grid,).
        losses: shape (seeds, grid); inf marks a diverged run, NaN one that does not exist.
        smooth: their smoothed means, shape (grid,).
        at: the grid point.
        error: standard error of one mean loss.
        draws: how many curves are drawn.
        rng: source of the draws.

    Returns:
        the minimum.
    """
    window = window_around(x, smooth, at, WINDOW * error, REACH)
    found = _in_window(x, losses, smooth, at, window, draws, rng)
    if found.bowl is not None and _misses(x, smooth, at, found.bowl, error):
        # A kink that no smooth curve has, such as the foot of a cliff.
        window = window_around(x, smooth, at, WINDOW * error, 0.0, LEAST)
        found = _in_window(x, losses, smooth, at, window, draws, rng)
    return found


def _misses(x: Array, smooth: Array, at: int, bowl: Bowl, error: float) -> bool:
    """Whether the curve runs far above the lowest point."""
    inside = np.isin(x, bowl.x) & np.isfinite(smooth)
    rest = smooth[inside] - bowl.at(x[inside])
    return bool(rest.mean() + bowl.at(x[at]) - smooth[at] > MISS * error)


def _in_window(
    x: Array,
    losses: Array,
    smooth: Array,
    at: int,
    window: tuple[int, int, list[bool]],
    draws: int,
    rng: np.random.Generator,
) -> Minimum:
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
        return _by_grid(x, smooth, at, ends, cliffs, draws, rng)
    bowl = fit_bowl(x[first : last + 1], inside, ends, draws, rng)
    apart = seeds_apart(x[first : last + 1], inside, bowl)
    apart = math.hypot(apart, FLOOR * float(np.diff(x[first : last + 1]).mean()))
    noise = rng.standard_normal(draws)
    ended = (first == 0, last == len(x) - 1)
    # A minimum inside the grid stays there: the losses rise at its end.
    low, high = (
        float(np.nextafter(end, x[at])) if at_end else end
        for end, at_end in zip(ends, ended, strict=True)
    )

    def placed(found: Place, moved: Array, error: float) -> Place:
        """The draws after they were moved, with another error, and spread out beside cliffs."""
        # At an end of the grid that is no cliff the loss may go on falling.
        inner = ((found.draws > x[0]) | (not ended[0])) & ((found.draws < x[-1]) | (not ended[1]))
        drawn = moved + error * noise
        sample, where = np.where(inner, np.clip(drawn, low, high), found.draws), found.x
        for side, sign in enumerate((-1, 1)):
            if ended[side]:
                continue
            # The foot of a cliff is as likely here as there; and beyond the window, where the curve
            # still falls at its end, nothing is known either.
            start = x[at] if cliffs[side] else ends[side]
            beyond = inner & (sign * (sample - start) >= 0)
            sample = np.where(beyond, x[at] + rng.random(draws) * (ends[side] - x[at]), sample)
            if sign * (where - start) >= 0:
                where = x[at]
        return Place(float(where), sample)

    off = SHAPE_ERROR * (bowl.place.x - bowl.stiff.x)
    outward = _beyond_shrinkage(bowl, NEAR if seeds > 1 else TAIL)
    narrowed = bowl.stiff.x + STIFFNESS * (bowl.stiff.draws - bowl.stiff.x)
    return Minimum(
        placed(bowl.place, outward, apart),
        placed(bowl.place, bowl.place.draws, math.hypot(apart, off)),
        placed(bowl.stiff, narrowed, apart),
        apart,
        flag,
        "seeds" if seeds > 1 else "residuals",
        bowl,
    )


def _beyond_shrinkage(bowl: Bowl, tail: float) -> Array:
    """Minima spread out away from those of stiffer curves, and drawn together towards them."""
    found = bowl.place
    off = max(
        BEYOND_STIFF * (found.x - bowl.stiff.x), BEYOND_PARABOLA * (found.x - bowl.plain), key=abs
    )
    side = -1.0 if off < 0 else 1.0
    away = side * (found.draws - found.x)
    low, near, far = np.quantile(away, [TAIL, tail, 1 - TAIL])
    share = near / low if near < 0 else 1.0
    beyond = abs(off) * np.clip(away / far, 0.0, 1.0) if far > 0 else 0.0
    return np.asarray(found.x + side * np.where(away < 0, share * away, away + beyond))


def _by_grid(
    x: Array,
    smooth: Array,
    at: int,
    ends: tuple[float, float],
    cliffs: list[bool],
    draws: int,
    rng: np.random.Generator,
) -> Minimum:
    """The vertex through three points, or the best one, with half a step on either side.

    Towards a cliff it is a whole step, for its foot is as likely here as there.
    """
    left, right = max(at - 1, 0), min(at + 1, len(x) - 1)
    step = (x[right] - x[left]) / (right - left)
    where = x[at]
    if left < at < right and np.isfinite(smooth[[left, right]]).all() and not any(cliffs):
        fit = np.polyfit(x[left : right + 1] - x[at], smooth[left : right + 1], 2)
        if fit[0] > 0:
            where = x[at] - fit[1] / (2 * fit[0])
    below, above = (1.0 if cliff else 0.5 for cliff in cliffs)
    sample = where + step * rng.uniform(-below, above, draws)
    place = Place(float(where), np.clip(sample, *ends))
    return Minimum(place, place, place, 0.0, "cliff" if any(cliffs) else "", "grid", None)
