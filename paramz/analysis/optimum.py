"""Where a loss curve over a hyperparameter has its minimum, and how sure that is.

The curve comes out of a sweep: a coarse grid, few seeds, and on one side often a cliff where
training diverges. The cliff would drag a parabola through all points away from the minimum, so it
is fitted to a short window around the best grid point, and its vertex is used only inside that
window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array

# A second neighbour joins the window while its loss is within this fraction of the minimum.
WINDOW = 0.05
# Weight of a second neighbour. With weight one, bowls that are steeper on one side put the vertex
# of a five-point parabola half a grid step off; with zero, the noise of three points is doubled.
OUTER = 0.1
# Where one step up is this many times higher than two steps up the other side, it is a cliff, not
# the side of a bowl.
CLIFF = 5.0


@dataclass(frozen=True)
class Optimum:
    """The minimum of one curve over x = log2 of the hyperparameter.

    Attributes:
        x: position of the minimum: the vertex of the local parabola.
        lo: lower end of its interval; -inf where the grid ends before the loss rises.
        hi: upper end; inf likewise.
        grid: grid point with the lowest mean loss.
        loss: mean loss there.
        curvature: second derivative of the local parabola, in loss per octave squared.
        flag: ``""`` for a bracketed minimum, ``"edge"`` at an end of the grid, ``"cliff"`` where a
            neighbour diverged or lies far higher than the other side of the bowl.
        interval: what the interval was made from: ``"seeds"``, ``"residuals"`` or ``"grid"`` (half
            a step).
        draws: bootstrap positions, shape (draws,).
    """

    x: float
    lo: float
    hi: float
    grid: float
    loss: float
    curvature: float
    flag: str
    interval: str
    draws: Array


def find_optimum(
    x: Array, losses: Array, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Optimum:
    """The minimum of seed-averaged losses over a grid, with a bootstrap interval.

    With two or more seeds the interval resamples seeds; with one, it redraws the window from the
    scatter about its parabola; where the window has no more points than the parabola has
    coefficients, it is half a grid step either side. As a bowl is no parabola, the first two are
    widened by the distance between the vertices of the parabolas through the middle three and the
    middle five points, up to half a grid step.

    Args:
        x: increasing grid, shape (grid,), in log2 of the hyperparameter.
        losses: shape (seeds, grid); inf marks a diverged run, NaN one that does not exist.
        draws: size of the bootstrap.
        level: coverage of the interval.
        seed: seed of the bootstrap.

    Returns:
        the optimum.

    Raises:
        ValueError: no grid point is free of diverged runs.

    >>> x = np.arange(-8.0, -2.0)
    >>> found = find_optimum(x, 3 + 0.1 * (x[None] + 5.3) ** 2)
    >>> round(found.x, 2), found.grid, found.flag
    (-5.3, -5.0, '')
    """
    mean = _mean_over_seeds(losses)
    if not np.isfinite(mean).any():
        raise ValueError("every run diverged: the sweep needs smaller values")
    vertex, grid, curvature = (a[0] for a in vertices(x, mean[None]))
    at = int(np.argmin(mean))
    flag = _flag(mean, at)
    rng = np.random.default_rng(seed)
    kind, sample = _resample(x, losses, mean, float(vertex), draws, rng)
    tail = (1 - level) / 2
    lo, hi = np.quantile(sample, [tail, 1 - tail])
    if at == 0:
        lo = -np.inf
    if at == len(x) - 1:
        hi = np.inf
    return Optimum(
        float(vertex),
        float(min(lo, vertex)),
        float(max(hi, vertex)),
        float(grid),
        float(mean[at]),
        float(curvature),
        flag,
        kind,
        sample,
    )


def vertices(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The windowed-parabola minimum of many curves on one grid.

    The window is the best point, its two neighbours and, if both are within `WINDOW` of the
    minimum, those of the next two that are, too. Where the vertex of the wider fit lies outside its
    window, or its parabola opens downwards, the three points decide. At an end of the grid, or
    beside a diverged point, the best grid point itself is returned.

    Args:
        x: grid, shape (grid,).
        y: losses, shape (curves, grid), inf where diverged.

    Returns:
        vertex, best grid point and curvature (NaN where none), each of shape (curves,).
    """
    n = len(x)
    at = np.argmin(y, axis=1)
    rows = np.arange(len(y))
    best = y[rows, at]
    offsets = np.arange(-2, 3)
    where = at[:, None] + offsets
    inside = (where >= 0) & (where < n)
    where = np.clip(where, 0, n - 1)
    local = np.where(inside, y[rows[:, None], where], np.inf)
    u = x[where] - x[at][:, None]

    bracketed = np.isfinite(local[:, 1]) & np.isfinite(local[:, 3])
    near = local <= (best + WINDOW * np.abs(best))[:, None]
    three = np.broadcast_to([0.0, 1.0, 1.0, 1.0, 0.0], local.shape).copy()
    wide = three.copy()
    both = near[:, 1] & near[:, 3]
    wide[:, 0] = OUTER * (near[:, 0] & both)
    wide[:, 4] = OUTER * (near[:, 4] & both)
    three[~bracketed] = wide[~bracketed] = 0

    vertex, curvature = _parabola(u, local, three)
    wide_vertex, wide_curvature = _parabola(u, local, wide)
    reach = np.where(wide > 0, np.abs(u), 0).max(axis=1, initial=0)
    ok = (wide > 0).sum(axis=1) > 3
    ok &= (wide_curvature > 0) & (np.abs(wide_vertex) <= reach)
    vertex = np.where(ok, wide_vertex, vertex)
    curvature = np.where(ok, wide_curvature, curvature)
    return x[at] + np.where(np.isfinite(vertex), vertex, 0.0), x[at], curvature


def _parabola(u: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """Vertex and curvature of weighted least-squares parabolas; NaN where undetermined."""
    y = np.where(weight > 0, y, 0.0)
    y = y - y[:, 2:3]  # a large common offset would cost digits
    basis = np.stack([np.ones_like(u), u, u * u], axis=-1)
    gram = np.einsum("bi,bij,bik->bjk", weight, basis, basis)
    moment = np.einsum("bi,bij->bj", weight, basis * y[..., None])
    solvable = (weight > 0).sum(axis=1) >= 3
    gram[~solvable] = np.eye(3)
    _, slope, bend = np.linalg.solve(gram, moment[..., None])[..., 0].T
    bent = solvable & (bend > 0)
    vertex = np.where(bent, -slope / np.where(bent, 2 * bend, 1.0), np.nan)
    return vertex, np.where(solvable, 2 * bend, np.nan)


def _mean_over_seeds(losses: Array) -> Array:
    """Mean over the seeds there are; one diverged seed makes the point diverged."""
    present = ~np.isnan(losses)
    count = present.sum(axis=0)
    total = np.where(present, losses, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def _flag(mean: Array, at: int) -> str:
    """The flag of a minimum at this grid point."""
    if at in (0, len(mean) - 1):
        return "edge"
    left, right = mean[at - 1] - mean[at], mean[at + 1] - mean[at]
    far_left, far_right = (
        mean[max(at - 2, 0)] - mean[at],
        mean[min(at + 2, len(mean) - 1)] - mean[at],
    )
    # One step up a parabola is never more than two steps up its other side.
    if np.isinf(left + right) or left > CLIFF * far_right or right > CLIFF * far_left:
        return "cliff"
    return ""


def _resample(
    x: Array, losses: Array, mean: Array, vertex: float, draws: int, rng: np.random.Generator
) -> tuple[str, Array]:
    """Bootstrap positions of the minimum and the name of what was resampled."""
    seeds = len(losses)
    at = int(np.argmin(mean))
    step = np.diff(x)[max(at - 1, 0) : at + 1].mean()
    if seeds >= 2:
        pick = rng.integers(seeds, size=(draws, seeds))
        sample, _, _ = vertices(x, np.stack([_mean_over_seeds(losses[p]) for p in pick]))
        # The spread of a resampled mean is too small by this factor; it matters for few seeds.
        sample = vertex + (sample - vertex) * np.sqrt(seeds / (seeds - 1))
        return "seeds", sample + _shape_error(x, mean, at, step) * rng.uniform(-1, 1, draws)
    window = slice(max(at - 2, 0), at + 3)
    near = mean <= mean[at] + WINDOW * abs(mean[at])
    inside = np.flatnonzero(near[window]) + window.start
    if len(inside) > 3 and {at - 1, at + 1} <= set(inside):
        fit = np.polynomial.Polynomial.fit(x[inside], mean[inside], 2)
        scatter = mean[inside] - fit(x[inside])
        sigma = np.sqrt(np.sum(scatter**2) / (len(inside) - 3))
        curves = np.repeat(mean[None], draws, axis=0)
        curves[:, inside] = fit(x[inside]) + sigma * rng.standard_normal((draws, len(inside)))
        sample = vertices(x, curves)[0]
        return "residuals", sample + _shape_error(x, mean, at, step) * rng.uniform(-1, 1, draws)
    return "grid", vertex + step * rng.uniform(-0.5, 0.5, draws)


def _shape_error(x: Array, mean: Array, at: int, step: float) -> float:
    """How far three and five points disagree about the vertex, up to half a step."""
    five = slice(at - 2, at + 3)
    if at < 2 or at > len(x) - 3 or not np.isfinite(mean[five]).all():
        return step / 2
    u = (x[five] - x[at])[None].repeat(2, axis=0)
    weight = np.array([[0.0, 1.0, 1.0, 1.0, 0.0], [1.0] * 5])
    vertex, _ = _parabola(u, mean[five][None].repeat(2, axis=0), weight)
    gap = abs(vertex[1] - vertex[0])
    return float(min(gap, step / 2)) if np.isfinite(gap) else step / 2
