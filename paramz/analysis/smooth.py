"""Splines whose smooth limit is the parabola, for many noises and strengths of bending.

The third derivative is taken for white noise of unknown strength (O'Sullivan 1986; Eilers and Marx
1996), so that walls and lopsided bowls bend the curve and noise does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.seeds import normal_equations, pure_noise

# Strengths of bending that are averaged over: changes of half the curvature per octave, in units of
# that of the bowl. The first is a parabola in all but name.
CHANGES = np.array([0.002, *np.geomspace(0.024, 24.0, 9)])
# How many steps of noise there are.
_NOISES = 12
_MOST_PIECES = 10


@dataclass(frozen=True)
class Space:
    """The space of splines: position, its square, and the directions in which splines bend.

    Attributes:
        middle: position of the middle of the window.
        reach: half its width.
        ends: where the splines end.
        pieces: how many pieces they have.
    """

    middle: float
    reach: float
    ends: tuple[float, float]
    pieces: int

    def columns(self, x: Array) -> Array:
        """The columns at positions, shape (positions, columns)."""
        basis = _basis(x, self.ends, self.pieces)
        basis[:, 0] = (basis[:, 0] - self.middle) / self.reach
        basis[:, 1] = basis[:, 0] ** 2
        return basis

    def slopes(self, x: Array) -> Array:
        """Their derivatives, likewise."""
        step = 1e-4 * self.reach
        return np.asarray((self.columns(x + step) - self.columns(x - step)) / (2 * step))


@dataclass(frozen=True, eq=False)
class Smooth:
    """Smooth curves, a model for each noise and strength of bending, around one parabola.

    Attributes:
        space: what they are combined from.
        x: positions, shape (points,).
        rest: losses above the parabola, shape (seeds, points); NaN for a run that does not exist.
        at_points: the columns of curves there, shape (points, columns).
        at_fine: the same at the positions that were asked for, shape (fine, columns).
        parabola: its coefficients, those of the first two columns.
        bend: half its curvature, or that which noise would make.
        sigma: noise of each model, shape (models,).
        change: strength of bending of each, in units of `bend`, likewise.
        root: square roots of their covariances, shape (models, columns, columns).
        center: their means above the parabola, shape (models, columns).
        score: log evidence of each up to a constant, shape (models,).
    """

    space: Space
    x: Array
    rest: Array
    at_points: Array
    at_fine: Array
    parabola: Array
    bend: float
    sigma: Array
    change: Array
    root: Array
    center: Array
    score: Array


def fit_smooth(x: Array, losses: Array, fine: Array) -> Smooth:
    """Smooth curves through losses.

    Args:
        x: positions, shape (points,), three or more.
        losses: shape (seeds, points); NaN for a run that does not exist.
        fine: positions at which the curves will be needed, shape (fine,).

    Returns:
        the curves.
    """
    reach = max(np.ptp(x) / 2, 1e-9)
    pieces = int(np.clip(2 * (len(x) - 1), 4, _MOST_PIECES))
    space = Space((x[0] + x[-1]) / 2, reach, (min(x[0], fine[0]), max(x[-1], fine[-1])), pieces)
    at_points, at_fine = space.columns(x), space.columns(fine)
    gram, moment, square, rows = normal_equations(at_points, losses)
    ridge = 1e-13 * np.diag(np.diag(gram)[:2])
    parabola = np.linalg.solve(gram[:2, :2] + ridge, moment[:2]).astype(np.float64)
    # Rounding of the losses is noise, too, and below a millionth of the bowl nothing is known.
    most = float(np.nanmax(np.abs(losses))) or 1.0  # losses that are all zero have no unit
    floor = 1e-14 * most + 1e-6 * np.sqrt(square / max(rows, 1))
    # All that follows is about what the parabola leaves, so that no digits cancel.
    rest = losses - at_points[:, :2] @ parabola
    _, moment, square, _ = normal_equations(at_points, rest)
    # Where no loss can see a bend, rounding must not seem to.
    size, seen = np.linalg.eigh(gram)
    seen = seen[:, size > 1e-13 * size[-1]]
    moment = seen @ (seen.T @ moment)
    rough = max(np.sqrt(square / max(rows - 2, 1)), floor)
    bend = max(abs(parabola[1]), rough) / reach**2
    pure = pure_noise(losses)
    low, high = min(rough, pure), max(rough, pure if np.isfinite(pure) else rough)
    noises = np.geomspace(max(low / 20, floor / 2), 3 * high, _NOISES)
    sigma, change = (a.ravel() for a in np.meshgrid(noises, CHANGES, indexing="ij"))
    strength = change * bend

    hessian = gram / (sigma**2)[:, None, None]
    bending = np.arange(2, len(gram))
    hessian[:, bending, bending] += (strength**-2)[:, None]
    hessian[:, [0, 1], [0, 1]] += 1e-12 * hessian[:, [0, 1], [0, 1]]
    factor = np.linalg.cholesky(hessian)
    root = np.linalg.inv(factor)
    pull = moment / (sigma**2)[:, None]
    center = np.einsum("kji,kj->ki", root, np.einsum("kij,kj->ki", root, pull))
    score = (
        -rows * np.log(sigma)
        - len(bending) * np.log(strength)
        - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        - 0.5 * (square / sigma**2 - np.einsum("ki,ki->k", center, pull))
    )
    return Smooth(
        space, x, rest, at_points, at_fine, parabola, bend, sigma, change, root, center, score
    )


def _basis(x: Array, ends: tuple[float, float], pieces: int) -> Array:
    """Position (twice, to be centred and squared), then the directions in which splines bend.

    Coefficients of the latter are of one size when the third derivative is white noise of size one.
    """
    step = max(ends[1] - ends[0], 1e-9) / pieces
    away = np.abs((x[:, None] - ends[0]) / step - np.arange(-1, pieces + 2))
    spline = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6)
    third = np.diff(np.eye(pieces + 3), n=3, axis=0)
    bends = spline @ third.T @ np.linalg.inv(third @ third.T) * step**2.5
    return np.column_stack([x, x, bends])
