"""Where the optima of a sweep lie beside each other: bowls that are alike are fitted as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paramz.analysis.alike import Together, fit_together
from paramz.analysis.columns import Array, Mask
from paramz.analysis.curves import Curve
from paramz.analysis.window import above_zero, spans, window_of

# Shapes are compared by all points within so many octaves of the lowest, for far from the minimum
# they differ the most.
REACH = 3.0


def half_spread(draws: Array) -> float:
    """Half of what the middle 68 % of draws span."""
    low, high = np.quantile(draws, [0.16, 0.84])
    return float(high - low) / 2


def comparable(curves: Sequence[Curve]) -> tuple[Array, Array]:
    """Where the minima of curves are when they are compared with each other.

    Curves that have a minimum inside their window are fitted together. Others, whose minimum is a
    bound or one of two, lie where stiff curves, nearly parabolas, say that they lie beside those:
    stiff curves are off on bowls that are steeper on one side, but all by the same. What lies at
    the foot of a cliff lies there by the grid and is not off, so that beside it all lie, on
    average, where each clear curve says by itself. Where shapes differ, all stay.

    Args:
        curves: of one sweep, two or more.

    Returns:
        the minima, shape (curves,), and those of all curves that fit as well, shape (draws,
        curves).
    """
    places = np.array([c.optimum.stiff.x for c in curves])
    drawn = np.stack([c.optimum.stiff.draws for c in curves], axis=1)
    free = np.array([c.optimum.x for c in curves])
    own = np.stack([c.optimum.compared for c in curves], axis=1)
    ends = np.array([[c.x[0], c.x[-1]] for c in curves]).T
    clear = np.array([_is_clear(c) for c in curves])
    by_grid = ~clear & np.array([_lies_by_the_grid(c) for c in curves])
    rng = np.random.default_rng(0)
    told = [c for c, is_clear in zip(curves, clear, strict=True) if is_clear]
    found = _together(told, len(drawn), rng)
    if by_grid.any():
        places, drawn = np.where(by_grid, free, places), np.where(by_grid, own, drawn)
    if found is None:
        return (free, own) if by_grid.any() else (places, drawn)
    apart = np.array([c.optimum.apart for c in curves])[clear]
    alike = found.draws + apart * rng.standard_normal(found.draws.shape)
    about = found.places
    if by_grid.any():
        at, level = free[clear].mean(), own[:, clear].mean(axis=1)
        beside = ~clear & ~by_grid
        off, offs = at - places[clear].mean(), level - drawn[:, clear].mean(axis=1)
        places[beside] = _inside(places[beside], off, ends[:, beside])
        drawn[:, beside] = _inside(drawn[:, beside], offs[:, None], ends[:, beside])
    else:
        # Where all lie, beside the others, is what stiff curves say of all.
        at, level = places[clear].mean(), drawn[:, clear].mean(axis=1)
    if not clear.all():
        about = about + at - about.mean()
        alike = alike + (level - alike.mean(axis=1))[:, None]
    stays = found.differ[:, None] | _at_ends(own[:, clear], ends[:, clear])
    drawn[:, clear] = np.where(stays, own[:, clear], np.clip(alike, *ends[:, clear]))
    places[clear] = found.unlike * free[clear] + (1 - found.unlike) * about
    return places, drawn


def _at_ends(positions: Array, ends: Array) -> Mask:
    """Which positions lie at an end of their grid: bounds, that stay so."""
    return np.asarray((positions <= ends[0]) | (positions >= ends[1]))


def _inside(positions: Array, off: Array | float, ends: Array) -> Array:
    """Positions moved by an offset, as far as their grid goes, but for bounds."""
    return np.where(_at_ends(positions, ends), positions, np.clip(positions + off, *ends))


def _together(curves: Sequence[Curve], draws: int, rng: np.random.Generator) -> Together | None:
    """The minima of curves that are clear, fitted together; None where that cannot be done."""
    if len(curves) < 2:
        return None
    xs, losses = [], []
    for curve in curves:
        part = window_of(curve.x, curve.losses, curve.mean, REACH)
        inside = curve.losses[:, part]
        inside = inside[(~np.isnan(inside)).any(axis=1)]
        xs.append(curve.x[part])
        losses.append(inside)
    wide = any(spans(c.x, c.losses, c.mean) for c in curves)
    if wide and all(map(above_zero, losses)):
        losses = [np.log(each) for each in losses]
    starts = np.array([c.optimum.x for c in curves])
    return fit_together(xs, losses, starts, draws, rng)


def _is_clear(curve: Curve) -> bool:
    """Whether a curve has one minimum, inside its window."""
    found = curve.optimum
    if found.bowl is None or found.flag not in ("", "cliff"):
        return False
    return bool(found.bowl.x[0] < found.x < found.bowl.x[-1])


def _lies_by_the_grid(curve: Curve) -> bool:
    """Whether a minimum is a point of the grid, as at the foot of a cliff, and no end of it."""
    found, bowl = curve.optimum, curve.optimum.bowl
    return not curve.at_end and (bowl is None or not bowl.x[0] < found.x < bowl.x[-1])
