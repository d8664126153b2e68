"""Where the optima of a sweep lie beside each other: bowls that are alike are fitted as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paramz.analysis.alike import fit_together
from paramz.analysis.columns import Array
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

    Curves that have a minimum inside their window are fitted together, and the others, whose
    minimum is a bound or one of two, stay as they are. Where shapes differ, all stay.

    Args:
        curves: of one sweep, two or more.

    Returns:
        the minima, shape (curves,), and those of all curves that fit as well, shape (draws,
        curves).
    """
    places = np.array([c.optimum.stiff.x for c in curves])
    drawn = np.stack([c.optimum.stiff.draws for c in curves], axis=1)
    free = np.array([c.optimum.x for c in curves])
    clear = [k for k, c in enumerate(curves) if _is_clear(c)]
    if len(clear) < 2:
        return places, drawn
    xs, losses = [], []
    for k in clear:
        part = window_of(curves[k].x, curves[k].losses, curves[k].mean, REACH)
        inside = curves[k].losses[:, part]
        inside = inside[(~np.isnan(inside)).any(axis=1)]
        xs.append(curves[k].x[part])
        losses.append(inside)
    wide = any(spans(c.x, c.losses, c.mean) for c in (curves[k] for k in clear))
    if wide and all(map(above_zero, losses)):
        losses = [np.log(each) for each in losses]
    rng = np.random.default_rng(0)
    found = fit_together(xs, losses, free[clear], len(drawn), rng)
    if found is None:
        return places, drawn
    apart = np.array([curves[k].optimum.apart for k in clear])
    alike = found.draws + apart * rng.standard_normal(found.draws.shape)
    about = found.places
    if len(clear) < len(curves):
        # Where all lie, beside the others, is what stiff curves say of all.
        alike = alike + (drawn[:, clear].mean(axis=1) - alike.mean(axis=1))[:, None]
        about = about + places[clear].mean() - about.mean()
    own = np.stack([curves[k].optimum.compared for k in clear], axis=1)
    ends = np.array([[curves[k].x[0], curves[k].x[-1]] for k in clear]).T
    # What lies at an end of its grid is a bound, and stays one.
    stays = found.differ[:, None] | (own <= ends[0]) | (own >= ends[1])
    drawn[:, clear] = np.where(stays, own, np.clip(alike, *ends))
    places[clear] = found.unlike * free[clear] + (1 - found.unlike) * about
    return places, drawn


def _is_clear(curve: Curve) -> bool:
    """Whether a curve has one minimum, inside its window."""
    found = curve.optimum
    if found.bowl is None or found.flag not in ("", "cliff"):
        return False
    return bool(found.bowl.x[0] < found.x < found.bowl.x[-1])
