"""Where a surface over two variables is lowest, whatever the shape of its bowl.

The surface is a quadratic and a departure from it, with an effect of each seed. The departure is a
thin-plate spline (Duchon 1977; Wahba 1990, "Spline Models for Observational Data", section 2.4): a
rough random surface, so that bowls may be steeper on one side and their curvature may jump. How
large it is beside the noise is not known, and averaged over, weighted by how well each size
explains the losses. What is left is a distribution over surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, Mask

# Coefficients of a quadratic in two variables, without its constant.
_QUADRATIC = 5
# The mean variance of the departure at the points over that of the noise.
_RATIOS = np.array([0.0, *10 ** np.arange(-2, 8.1, 0.5)])
# Sizes of the departure that are less likely than this are left out of the average.
_RARE = 1e-3
# The flattest direction of a bowl counts as at least this steep beside the steepest.
_FLAT = 0.01
# Minima are looked for on this many positions of each variable, and again on as many around those.
_LATTICE = 17
# A surface without a minimum in one draw of twenty leaves both open.
_WHOLE = 0.95
# What rounding may take off the variances of a covariance.
_JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class Surface:
    """A surface through points: where it is lowest, shape (2,), and how sure that is.

    Attributes:
        best: the minimum, or the lowest place among the points; not finite for a saddle.
        lo: lower end of its 95 % interval.
        hi: upper end.
        slope: by how much the best x of the quadratic moves with b.
        inside: the minimum lies among the points.
        open: surfaces that fit as well have no minimum among the points.
        departs: the departure from a quadratic is likely larger than the noise of a loss.
    """

    best: Array
    lo: Array
    hi: Array
    slope: float
    inside: bool
    open: bool
    departs: bool


@dataclass(frozen=True, eq=False)
class _Model:
    """What explains the losses, for each size of the departure.

    Attributes:
        points: shape (points, 2).
        known: effects of seeds and quadratic at the points, shape (points, seeds + 5).
        even: makes bowls of the quadratic round, shape (2, 2).
        unit: of the kernel, for which the mean variance of the departure is one.
        y: losses, shape (points,).
        ratios: variances of the departure over that of the noise, shape (sizes,).
        share: how likely each is.
        square: sum of squares that each leaves.
        freedom: of that sum.
        convex: the quadratic has a minimum.
        slope: by how much its best x moves with b.
    """

    points: Array
    known: Array
    even: Array
    unit: float
    y: Array
    ratios: Array
    share: Array
    square: Array
    freedom: int
    convex: bool
    slope: float

    def kernel(self, z: Array, other: Array) -> Array:
        """Covariance of the departure between positions, up to planes."""
        between = (z[:, None] - other[None]) @ self.even
        square = (between**2).sum(axis=-1)
        return np.asarray(square * np.log(np.maximum(square, 1e-300)) / self.unit)


@dataclass(frozen=True, eq=False)
class _Minima:
    """Minima of surfaces, shape (surfaces, 2), and whether there is one."""

    place: Array
    there: Mask


def surface_through(runs: pd.DataFrame, draws: int, rng: np.random.Generator) -> Surface | None:
    """The surface through runs ``x, b, seed, loss``; None where no quadratic is determined."""
    seeds = pd.factorize(runs["seed"], use_na_sentinel=False)[0]  # an empty cell is one, too
    points = runs[["x", "b"]].to_numpy(dtype=float)
    if (runs[["x", "b"]].nunique() < 3).any():
        return None
    center, reach = points.mean(axis=0), np.ptp(points, axis=0) / 2
    points = (points - center) / reach
    known = np.hstack([np.eye(seeds.max() + 1)[seeds], _quadratic(points)])
    # At as many places as a quadratic has coefficients nothing tells of a departure.
    if np.linalg.matrix_rank(known) < known.shape[1] or len(points) <= known.shape[1]:
        return None
    if len(runs[["x", "b"]].drop_duplicates()) <= _QUADRATIC + 1:
        return None
    y = runs["loss"].to_numpy(dtype=float)
    model = _model(points, known, (y - y.mean()) / max(np.ptp(y), 1e-300))
    sides = np.linspace(points.min(axis=0), points.max(axis=0), _LATTICE).T
    one, others = _search(model, sides, draws, rng)
    inside, wide = bool(one.there[0]), bool(others.there.mean() < _WHOLE)
    lo, hi = np.full(2, -np.inf), np.full(2, np.inf)
    if inside and not wide:
        seen = np.quantile(others.place[others.there], [0.005, 0.995], axis=0)
        seen, step = np.vstack([seen, one.place]), sides[:, 1] - sides[:, 0]
        near = np.linspace(seen.min(axis=0) - step, seen.max(axis=0) + step, _LATTICE).T
        again, others = _search(model, near, draws, rng)
        one = again if again.there[0] else one
        lo, hi = np.quantile(others.place, [0.025, 0.975], axis=0)
        lo, hi = np.minimum(lo, one.place[0]), np.maximum(hi, one.place[0])
    best = one.place[0] if inside or model.convex else np.full(2, np.nan)
    return Surface(
        best * reach + center,
        lo * reach + center,
        hi * reach + center,
        model.slope * reach[0] / reach[1],
        inside,
        wide,
        bool(model.share[model.ratios >= 1].sum() > 0.5),
    )


def _quadratic(z: Array) -> Array:
    """The terms of a quadratic at positions, shape (positions, 5)."""
    x, b = z.T
    return np.stack([x, b, x * x, x * b, b * b], axis=1)


def _model(points: Array, known: Array, y: Array) -> _Model:
    """How likely each size of the departure is."""
    xx, xb, bb = np.linalg.lstsq(known, y, rcond=None)[0][-3:]
    steep, axes = np.linalg.eigh(np.array([[2 * xx, xb], [xb, 2 * bb]]))
    convex = bool(steep[0] > 0)
    even = np.eye(2)
    if convex:
        even = axes * np.sqrt(np.maximum(steep / steep[1], _FLAT)) @ axes.T
    freedom, slope = len(y) - known.shape[1], float(-xb / (2 * xx)) if xx else np.nan
    nothing = np.zeros(0)
    raw = _Model(points, known, even, 1.0, y, nothing, nothing, nothing, freedom, convex, slope)
    rest = np.linalg.qr(known, mode="complete")[0][:, known.shape[1] :]
    size, axes = np.linalg.eigh(rest.T @ raw.kernel(points, points) @ rest)
    size = np.maximum(size, 0.0)
    unit = max(float(size.mean()), 1e-300)
    spread = 1 + np.outer(_RATIOS, size / unit)
    square = ((axes.T @ (rest.T @ y)) ** 2 / spread).sum(axis=1)
    square = np.maximum(square, 1e-24 * float(y @ y) + 1e-300)
    score = -0.5 * np.log(spread).sum(axis=1) - 0.5 * freedom * np.log(square)
    share = np.exp(score - score.max())
    kept = share > _RARE * share.sum()
    share = share[kept] / share[kept].sum()
    return replace(raw, unit=unit, ratios=_RATIOS[kept], share=share, square=square[kept])


def _search(
    model: _Model, sides: Array, draws: int, rng: np.random.Generator
) -> tuple[_Minima, _Minima]:
    """The minimum of the average surface on a lattice, and those of drawn ones."""
    from scipy.spatial import Delaunay  # slow to import, and needed only here

    x, b = np.meshgrid(*sides, indexing="ij")
    z = np.stack([x.ravel(), b.ravel()], axis=1)
    count, known = model.known.shape
    within, beside = model.kernel(model.points, model.points), model.kernel(model.points, z)
    own = model.kernel(z, z)
    terms = np.zeros((known, len(z)))
    terms[0], terms[-_QUADRATIC:] = 1.0, _quadratic(z).T
    mean, drawn = np.zeros(len(z)), []
    each = rng.multinomial(draws, model.share)
    for ratio, share, square, some in zip(
        model.ratios, model.share, model.square, each, strict=True
    ):
        # Universal kriging (Cressie 1993, section 3.4); seeds and the quadratic are its trend.
        system = np.zeros((count + known, count + known))
        system[:count, :count] = ratio * within + np.eye(count)
        system[:count, count:], system[count:, :count] = model.known, model.known.T
        right = np.vstack([ratio * beside, terms])
        solved = np.linalg.solve(system, right)
        center = model.y @ solved[:count]
        mean += share * center
        if some:
            noise = np.sqrt(square / rng.chisquare(model.freedom, (some, 1)))
            root = _root(ratio * own - right.T @ solved)
            drawn.append(center + noise * (rng.standard_normal((some, len(z))) @ root.T))
    # Among the points, not beyond them: what a surface does there is made up.
    outside = Delaunay(model.points).find_simplex(z) < 0
    heights = np.where(outside, np.inf, np.vstack([mean, *drawn]))
    return _lowest(heights[:1], sides), _lowest(heights[1:], sides)


def _root(spread: Array) -> Array:
    """A root of a covariance that rounding may have made indefinite."""
    spread = (spread + spread.T) / 2
    try:
        return np.asarray(np.linalg.cholesky(spread + np.diag(_JITTER * np.diag(spread))))
    except np.linalg.LinAlgError:
        values, axes = np.linalg.eigh(spread)
        return np.asarray(axes * np.sqrt(np.maximum(values, 0)))


def _lowest(heights: Array, sides: Array) -> _Minima:
    """Where surfaces on a lattice are lowest; outside of it they are infinite."""
    height = heights.reshape(-1, _LATTICE, _LATTICE)
    i, j = np.unravel_index(heights.argmin(axis=1), (_LATTICE, _LATTICE))
    place = np.stack([sides[0][i], sides[1][j]], axis=1)
    inside = (np.minimum(i, j) > 0) & (np.maximum(i, j) < _LATTICE - 1)
    i, j = i.clip(1, _LATTICE - 2), j.clip(1, _LATTICE - 2)
    every = np.arange(len(height))
    near = np.array([[height[every, i + p, j + q] for q in (-1, 0, 1)] for p in (-1, 0, 1)])
    inside &= np.isfinite(near).all(axis=(0, 1))
    near = np.where(inside, near, 0.0)
    # The quadratic through it and its neighbours.
    gx, gb = (near[2, 1] - near[0, 1]) / 2, (near[1, 2] - near[1, 0]) / 2
    xx = near[2, 1] + near[0, 1] - 2 * near[1, 1]
    bb = near[1, 2] + near[1, 0] - 2 * near[1, 1]
    xb = (near[2, 2] + near[0, 0] - near[2, 0] - near[0, 2]) / 4
    det = xx * bb - xb**2
    convex = inside & (xx > 0) & (det > 0)
    det = np.where(convex, det, 1.0)
    moved = np.stack([xb * gb - bb * gx, xb * gx - xx * gb], axis=1) / det[:, None]
    step = sides[:, 1] - sides[:, 0]
    place = place + np.where(convex[:, None], moved.clip(-1, 1), 0.0) * step
    return _Minima(place, np.asarray(inside))
