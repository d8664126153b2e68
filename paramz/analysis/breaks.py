"""Curves that bend in one place: what a break adds to how well smooth curves explain losses.

Where training becomes unstable a loss curve may turn within a fraction of an octave, and no spline
of one strength follows it without following the noise as well. So one place may be where the
curvature jumps, or where the slope does, at once or within a fraction of an octave. The place, the
kind and the size are averaged over like all else. A break is one column more beside the spline, so
that each costs a rank-one update of the models without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paramz.analysis.columns import Array, Mask
from paramz.analysis.seeds import normal_equations
from paramz.analysis.smooth import Smooth

_Indices = NDArray[np.int64]

# Within how many octaves a slope turns; zero is a kink. Wider turns are for the spline: as one
# column they explain round corners too cheaply, and place the minimum beside them too surely.
_TURNS = (0.0, 0.2)
# How large a break is, in units of the bowl: standard deviation.
SIZE = 3.0
# How often a jump of the curvature is where the minimum is: training that becomes unstable ends the
# fall of the loss.
HERE = 0.9
# Places that are tried, and how often they move to where breaks explain the most.
_FIRST, _PLACES = 15, 31
_ROUNDS = 2
# Models whose log evidence is lower by this much with any break are left out.
_FAR = 14.0
# The share of places that stays spread out evenly.
_EVEN = 0.3


@dataclass(frozen=True, eq=False)
class Breaks:
    """Breaks beside smooth curves.

    Those of one kind are at the same places as those of another, and follow them. The first are
    jumps of the curvature; the last are the same with the minimum where they are.

    Attributes:
        at_fine: their columns at the positions asked for, shape (fine, breaks).
        gain: by how much each raises the log evidence of each model, shape (models, breaks), with
            what speaks for the place beforehand.
        size: mean of its size, likewise.
        error: standard deviation of its size, likewise.
        lean: how a curve gives way to a break of size one, shape (models, columns, breaks).
        slope: slope of each column of the smooth curves at the places, shape (places, columns).
        pull: how coefficients change for a slope of one to vanish there, shape (models, columns,
            places).
        pull_size: how the size of the break does, shape (models, places).
    """

    at_fine: Array
    gain: Array
    size: Array
    error: Array
    lean: Array
    slope: Array
    pull: Array
    pull_size: Array

    def curves(self, theta: Array, size: Array, pick: _Indices, which: _Indices) -> Array:
        """Curves with breaks, after the minimum was put where it has to be.

        Args:
            theta: coefficients of the curves without, shape (draws, columns).
            size: sizes of the breaks, shape (draws,).
            pick: the model of each curve, likewise.
            which: its break, likewise.

        Returns:
            coefficients and, in the last column, sizes of breaks, shape (draws, columns + 1).
        """
        theta = theta - size[:, None] * self.lean[pick, :, which]
        places = len(self.slope)
        place, last = which % places, self.size.shape[1] - places
        slope = (which >= last) * (theta * self.slope[place]).sum(axis=1)
        theta = theta - slope[:, None] * self.pull[pick, :, place]
        return np.column_stack([theta, size - slope * self.pull_size[pick, place]])


def find_breaks(smooth: Smooth, fine: Array, prior: Array) -> tuple[Mask, Breaks]:
    """Breaks, their places where they explain the most.

    Args:
        smooth: the curves without.
        fine: positions at which the curves will be needed, shape (fine,).
        prior: log evidence of the models with what speaks for them beforehand, shape (models,).

    Returns:
        which models explain the losses with any break or none, and the breaks of these.
    """
    x = smooth.x
    kept = np.ones(len(prior), dtype=bool)
    places = np.linspace(x[0], x[-1], 2 * _FIRST + 1)[1::2]
    for _ in range(_ROUNDS):
        score = _breaks_at(places, smooth, kept, fine).gain + prior[kept, None]
        best = np.maximum(score.max(axis=1), prior[kept])
        share = np.exp(score - score.max()).sum(axis=0).reshape(-1, len(places)).sum(axis=0)
        share = (1 - _EVEN) * share / share.sum() + _EVEN * _spacing(places, x)
        # Each place stands for the cell around it.
        below = np.concatenate([[0.0], np.cumsum(share / share.sum())])
        places = np.interp((np.arange(_PLACES) + 0.5) / _PLACES, below, _edges(places, x))
        kept[kept] = best > best.max() - _FAR
    return kept, _breaks_at(places, smooth, kept, fine)


def _breaks_at(places: Array, smooth: Smooth, kept: Mask, fine: Array) -> Breaks:
    """The breaks at given places beside some of the models."""
    count, width = len(places), smooth.at_points.shape[1]
    columns = _columns(smooth.x, places, smooth)
    kinds = columns.shape[1] // count
    gram, moment, _, _ = normal_equations(np.column_stack([smooth.at_points, columns]), smooth.rest)
    cross, own, moment = gram[:width, width:], np.diag(gram)[width:], moment[width:]
    weight, center, root = smooth.sigma[kept, None] ** -2, smooth.center[kept], smooth.root[kept]
    inverse = np.swapaxes(root, 1, 2) @ root
    lean = (inverse @ cross) * weight[:, :, None]
    left = np.maximum(own - (cross * lean).sum(axis=1), 0.0) * weight
    pull = (moment - center @ cross) * weight
    precision = left + SIZE**-2
    size, error = pull / precision, precision**-0.5
    cell = np.log(_spacing(places, smooth.x))
    gain = 0.5 * (pull * size - np.log(SIZE**2 * precision)) - np.log(kinds) + np.tile(cell, kinds)

    # Where the minimum is at the jump, the slope vanishes there.
    slope = smooth.space.slopes(places)
    lean_here, size_here, error_here = lean[:, :, :count], size[:, :count], error[:, :count]
    against = (slope.T * lean_here).sum(axis=1)
    center = center + np.pad(smooth.parabola, (0, width - 2))
    mean = center @ slope.T - against * size_here
    move = inverse @ slope.T + lean_here * (against * error_here**2)[:, None, :]
    variance = (slope.T * move).sum(axis=1)
    variance = np.maximum(variance, 1e-24 * (smooth.bend * smooth.space.reach) ** 2)
    # The density of the minimum at a place is that of a slope of zero, times the curvature.
    density = -0.5 * (mean**2 / variance + np.log(2 * np.pi * variance)) + np.log(2 * smooth.bend)
    here = gain[:, :count] + density + np.log(np.ptp(smooth.x) * HERE)
    gain[:, :count] += np.log(1 - HERE)
    at_fine = _columns(fine, places, smooth)
    return Breaks(
        np.column_stack([at_fine, at_fine[:, :count]]),
        np.column_stack([gain, here]),
        np.column_stack([size, size_here]),
        np.column_stack([error, error_here]),
        np.concatenate([lean, lean_here], axis=2),
        slope,
        move / variance[:, None, :],
        -against * error_here**2 / variance,
    )


def _columns(x: Array, places: Array, smooth: Smooth) -> Array:
    """A jump of the curvature, and turns of the slope, at each place, in units of the bowl."""
    away = x[:, None] - places
    jump = smooth.bend * np.maximum(0.0, away) ** 2
    turns = [smooth.bend * smooth.space.reach * (away + np.hypot(away, r)) / 2 for r in _TURNS]
    return np.column_stack([jump, *turns])


def _edges(places: Array, x: Array) -> Array:
    return np.concatenate([x[:1], (places[1:] + places[:-1]) / 2, x[-1:]])


def _spacing(places: Array, x: Array) -> Array:
    """The share of the window that each place stands for."""
    return np.maximum(np.diff(_edges(places, x)), 1e-12) / np.ptp(x)
