"""A smooth curve through noisy losses around their minimum, with all curves that fit as well.

The curve is a spline whose smooth limit is the parabola: its third derivative is taken for white
noise of unknown strength (O'Sullivan 1986; Eilers and Marx 1996), so that steep walls and lopsided
bowls bend it and noise does not. Neither the noise of the losses nor that strength is known. Both
are averaged over, weighted by how well they explain the losses, and what is left is a distribution
over curves. Losses of one seed share an offset of their own, which drops out.

There are two such averages. Curves that are free to bend tell where a minimum is: on a flat bowl
that is steeper on one side a parabola is biased. Stiff ones, nearly parabolas, tell how minima move
between scales: the bowls of one sweep are alike, so that all have this bias, and less noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array, Mask

# By how much bowls change their curvature per octave, in halves of the curvature: free ones by less
# than this in half of all cases, and stiff ones hardly ever by more than theirs.
STIFF, FREE = 1.2, 2.0
# Changes that are averaged over, in the same unit, and how many steps of noise there are.
_CHANGES = np.geomspace(0.024, 24.0, 9)
_NOISES = 12
_MOST_PIECES = 10
# Optima of seeds that lie apart by up to this many times what noise explains are laid to noise.
CHANCE = 1.5
# Points of the fine grid on which a curve's minimum is looked for.
_FINE = 101


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
        fine: positions, shape (fine,).
        mean: the average curve there, zero at its minimum, shape (fine,).
        curves: the curves there, each up to a constant, shape (draws, fine).
        place: their minima.
        stiff: the minima of curves that are nearly parabolas.
        curvature: second derivative of the average curve at its minimum.
        noise: standard deviation of one loss about the curve of its seed.
    """

    fine: Array
    mean: Array
    curves: Array
    place: Place
    stiff: Place
    curvature: float
    noise: float


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
    middle, reach = (x[0] + x[-1]) / 2, max(np.ptp(x) / 2, 1e-9)
    pieces = int(np.clip(2 * (len(x) - 1), 4, _MOST_PIECES))
    basis = _basis(np.concatenate([x, fine]), (min(x[0], ends[0]), max(x[-1], ends[1])), pieces)
    basis[:, 0] = (basis[:, 0] - middle) / reach
    basis[:, 1] = basis[:, 0] ** 2
    at_points, at_fine = basis[: len(x)], basis[len(x) :]
    gram, moment, square, rows = _normal_equations(at_points, losses)
    ridge = 1e-13 * np.diag(np.diag(gram)[:2])
    parabola = np.linalg.solve(gram[:2, :2] + ridge, moment[:2])
    # Rounding of the losses is noise, too, and below a millionth of the bowl nothing is known.
    floor = 1e-14 * np.nanmax(np.abs(losses)) + 1e-6 * np.sqrt(square / max(rows, 1)) + 1e-300
    # All that follows is about what the parabola leaves, so that no digits cancel.
    _, moment, square, _ = _normal_equations(at_points, losses - at_points[:, :2] @ parabola)
    # Where no loss can see a bend, rounding must not seem to.
    size, seen = np.linalg.eigh(gram)
    seen = seen[:, size > 1e-13 * size[-1]]
    moment = seen @ (seen.T @ moment)
    rough = max(np.sqrt(square / max(rows - 2, 1)), floor)
    bend = max(abs(parabola[1]), rough) / reach**2
    pure = _pure_noise(losses)
    low, high = min(rough, pure), max(rough, pure if np.isfinite(pure) else rough)
    noises = np.geomspace(max(low / 20, floor / 2), 3 * high, _NOISES)
    sigma, change = (a.ravel() for a in np.meshgrid(noises, _CHANGES, indexing="ij"))
    strength = change * bend

    hessian = gram / (sigma**2)[:, None, None]
    bending = np.arange(2, len(gram))
    hessian[:, bending, bending] += (strength**-2)[:, None]
    hessian[:, [0, 1], [0, 1]] += 1e-12 * hessian[:, [0, 1], [0, 1]]
    root = np.linalg.cholesky(hessian)
    spread = np.linalg.inv(root)
    pull = moment / (sigma**2)[:, None]
    center = np.einsum("kji,kj->ki", spread, np.einsum("kij,kj->ki", spread, pull))
    score = (
        -rows * np.log(sigma)
        - len(bending) * np.log(strength)
        - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        - 0.5 * (square / sigma**2 - np.einsum("ki,ki->k", center, pull))
    )
    center[:, :2] += parabola
    shake = rng.standard_normal((draws, 1, len(gram)))

    def averaged(prior: Array) -> tuple[Array, Array, Array]:
        """Weights, the average curve, and curves drawn, for a prior over noises and changes."""
        weight = np.exp(score + prior - (score + prior).max())
        weight /= weight.sum()
        pick = rng.choice(len(weight), size=draws, p=weight)
        theta = center[pick] + (shake @ spread[pick])[:, 0]
        return weight, at_fine @ (weight @ center), theta @ at_fine.T

    # The middle of Cauchy's distribution is even in the change itself, not in its logarithm.
    weight, average, curves = averaged(np.log(change) - np.log1p((change / FREE) ** 2))
    _, stiff, stiff_curves = averaged(-np.log1p((change / STIFF) ** 2))
    where, curvature = _minimum(fine, np.stack([average, stiff]))
    if np.ptp(average) <= 1e-12 * max(np.abs(losses[np.isfinite(losses)]).max(), 1e-300):
        where = np.array([middle, middle])  # flat: no point is lower than another
    return Bowl(
        fine,
        average - average.min(),
        curves,
        Place(float(where[0]), _minimum(fine, curves)[0]),
        Place(float(where[1]), _minimum(fine, stiff_curves)[0]),
        float(curvature[0]),
        float(np.exp(weight @ np.log(sigma))),
    )


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


def _normal_equations(basis: Array, losses: Array) -> tuple[Array, Array, float, int]:
    """Gram matrix, moments, sum of squares and rows left, each seed's mean taken out."""
    there = ~np.isnan(losses)
    there &= (there.sum(axis=1) > 1)[:, None]  # a seed with one run says nothing
    losses, there = losses[there.any(axis=1)], there[there.any(axis=1)]
    count = there.sum(axis=1, keepdims=True)
    y = np.where(there, losses, 0.0)
    y = np.where(there, y - y.sum(axis=1, keepdims=True) / count, 0.0)
    means = there @ basis / count
    gram = basis.T @ (there.sum(axis=0)[:, None] * basis) - means.T @ (count * means)
    return gram, basis.T @ y.sum(axis=0), float((y**2).sum()), int(there.sum() - len(there))


def _pure_noise(losses: Array) -> float:
    """Noise from how seeds differ beyond an offset; inf where there is too little of it."""
    there = ~np.isnan(losses)
    freedom = there.sum() - len(losses) - losses.shape[1] + 1
    if len(losses) < 2 or freedom < 2:
        return np.inf
    rest = residuals(losses)
    return float(np.sqrt(np.nansum(rest**2) / freedom)) or np.inf


def residuals(losses: Array) -> Array:
    """Losses without the effects of seeds and of positions, NaN where there is no run."""
    there = ~np.isnan(losses)
    rest = losses - losses[there].mean()
    for _ in range(1 if there.all() else 30):
        rest = rest - _mean(rest, there, 1)
        rest = rest - _mean(rest, there, 0)
    return np.asarray(rest)


def _mean(values: Array, there: Mask, axis: int) -> Array:
    total = np.where(there, values, 0.0).sum(axis=axis, keepdims=True)
    return np.asarray(total / np.maximum(there.sum(axis=axis, keepdims=True), 1))


def _minimum(x: Array, y: Array) -> tuple[Array, Array]:
    """Position of the minimum of each curve, between its points, and its curvature."""
    at = np.argmin(y, axis=1)
    rows = np.arange(len(y))
    inner = np.clip(at, 1, len(x) - 2)
    step = x[1] - x[0]
    left, here, right = (y[rows, inner + k] for k in (-1, 0, 1))
    bend = left - 2 * here + right
    slope = (right - left) / 2
    shift = np.where((inner == at) & (bend > 0), -slope / np.where(bend > 0, bend, 1.0), 0.0)
    return x[at] + step * np.clip(shift, -1, 1), bend / step**2
