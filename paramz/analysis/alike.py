"""How the minima of several loss curves lie apart, if all have one shape.

The bowls of one sweep are alike: wide models fall and diverge as narrow ones do, at other values.
So each curve is what all have in common, moved along and scaled, and a bend of its own, both
splines whose third derivative is white noise (as in `smooth`). How strong bends are is not known.
It is averaged over, weighted by how well it explains the losses: where bowls are alike, what their
shape does to one minimum it does to all, and drops out of how they lie apart; where they are not,
the losses say so, and each minimum is what its own curve says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paramz.analysis.alikefit import Data, fit_strengths
from paramz.analysis.bowl import minima
from paramz.analysis.columns import Array, Mask
from paramz.analysis.seeds import normal_equations
from paramz.analysis.smooth import Space

# By how much draws are spread out for what is linear here only, and how well the slope of what
# is common is known, as a share of it (see benchmarks/transfer_power.py).
SPREAD, STRETCH = 1.15, 0.04
_PIECES = 10
# What is common is found where the minima are, and those by what is common.
_ROUNDS = 4
# Fewer losses than coefficients and this many say nothing of noise.
_FREEDOM = 3
# By how much, in octaves, splines reach beyond the losses.
_MARGIN = 0.02
_FINE = 161
# Columns nearer than this to one multiple of another are the same.
_SEEN = 1e-6


@dataclass(frozen=True, eq=False)
class Together:
    """The minima of curves that were fitted together.

    Attributes:
        places: those of the average curves, shape (curves,).
        draws: those of all that explain the losses as well, shape (draws, curves).
        unlike: how likely it is that shapes differ.
        differ: the draws in which they do, shape (draws,).
    """

    places: Array
    draws: Array
    unlike: float
    differ: Mask


def fit_together(
    xs: Sequence[Array],
    losses: Sequence[Array],
    starts: Array,
    draws: int,
    rng: np.random.Generator,
) -> Together | None:
    """Fit curves together.

    Args:
        xs: positions of each curve, increasing, shape (points,).
        losses: of each, shape (seeds, points); NaN for a run that does not exist.
        starts: about where the minima are, shape (curves,).
        draws: how many curves to draw.
        rng: source of the draws.

    Returns:
        the minima; None where there are too few losses, or a curve lies beside what the others have
        in common.
    """
    at, height = np.array(starts, dtype=float), np.ones(len(xs))
    shape: _Shape | None = None
    noise = None
    for turn in range(_ROUNDS):
        away = [x - m for x, m in zip(xs, at, strict=True)]
        ends = (min(u[0] for u in away) - _MARGIN, max(u[-1] for u in away) + _MARGIN)
        space = Space(sum(ends) / 2, (ends[1] - ends[0]) / 2, ends, _PIECES)
        fine = np.linspace(*ends, _FINE)
        at_fine = _columns(fine, space, shape)
        if sum(int((~np.isnan(y)).sum()) - len(y) for y in losses) < 2 * len(xs) + _FREEDOM:
            return None
        columns = [_columns(u, space, shape) for u in away]
        if not all(_sees_a_minimum(c) for c in columns):
            return None
        data = [Data.of(c, y) for c, y in zip(columns, losses, strict=True)]
        fits = fit_strengths(data, height, _bend(away, losses), noise)
        mean = fits.mean()
        outside = np.array([(fine < u[0] - 1e-9) | (fine > u[-1] + 1e-9) for u in away])
        curves = np.where(outside, np.inf, mean @ at_fine.T)
        where = minima(fine, curves)[0]
        if turn == _ROUNDS - 1:
            break
        rise = _rise(fine, mean @ at_fine.T, where)
        if rise.min() > 0:
            size = float(np.exp(np.log(rise).mean()))
            height = rise / size
            own = (mean[:, :2] / rise[:, None]).mean(axis=0)
            together = at_fine @ np.concatenate([own, fits.common / size])
            basis = np.column_stack([np.ones(_FINE), space.columns(fine)])
            lowest = float(minima(fine, together[None])[0][0])
            shape = space, np.linalg.lstsq(basis, together, rcond=None)[0][1:], lowest
        at, noise = at + where, fits.noise
    drawn, differ = fits.draw(draws, rng)
    curves = np.where(outside, np.inf, drawn @ at_fine.T)
    moved = minima(fine, curves.reshape(-1, _FINE))[0].reshape(draws, len(xs))
    places = at + where
    # A curve is taken to change in proportion to how far it moves, by a slope that is not quite
    # known, so that long ways are known less well.
    stretch = 1 + STRETCH * rng.standard_normal((draws, 1))
    apart = stretch * (places - places.mean()) + SPREAD * (at + moved - places)
    return Together(places, places.mean() + apart, fits.unlike, differ)


# What curves have in common: a spline with its coefficients, and where its minimum is.
_Shape = tuple[Space, Array, float]


def _columns(x: Array, space: Space, shape: _Shape | None) -> Array:
    """Columns of a curve: along its slope, along its height, and bends."""
    columns = space.columns(x)
    if shape is not None:
        before, common, lowest = shape
        inside = np.clip(x + lowest, *before.ends)
        columns[:, 0] = before.slopes(inside) @ common
        columns[:, 1] = before.columns(inside) @ common
    return columns


def _sees_a_minimum(columns: Array) -> bool:
    """Whether a curve's losses tell a move of what is common from a change of its height."""
    seen = columns[:, :2] - columns[:, :2].mean(axis=0)
    size = np.linalg.svd(seen, compute_uv=False)
    return bool(size[-1] > _SEEN * size[0])


def _bend(xs: Sequence[Array], losses: Sequence[Array]) -> float:
    """Half the curvature of most curves, as parabolas."""
    found = []
    for x, y in zip(xs, losses, strict=True):
        gram, moment, _, _ = normal_equations(np.column_stack([x, x**2]), y)
        found.append(abs(np.linalg.lstsq(gram, moment, rcond=None)[0][1]))
    return max(float(np.median(found)), 1e-300)


def _rise(fine: Array, curves: Array, where: Array) -> Array:
    """By how much each curve rises within an octave of its minimum, the mean of both sides."""
    return np.array(
        [
            np.interp([w - 1, w + 1], fine, c).mean() - np.interp(w, fine, c)
            for w, c in zip(where, curves, strict=True)
        ]
    )
