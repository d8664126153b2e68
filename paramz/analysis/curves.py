"""The loss curves of one group, a curve per scale, and the measures of transfer between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array
from paramz.analysis.optimum import Optimum, find_optimum


@dataclass(frozen=True, eq=False)
class Curve:
    """The losses at one scale over a grid of the hyperparameter, and their minimum.

    Attributes:
        scale: the scale.
        x: the grid, in log2 of the hyperparameter.
        losses: shape (seeds, grid); inf for a run that diverged, NaN for one that does not exist.
        mean: mean over the seeds there are, shape (grid,).
        optimum: the minimum.
    """

    scale: float
    x: Array
    losses: Array
    mean: Array
    optimum: Optimum

    def rows(self) -> list[dict[str, object]]:
        """The curve as rows of `Transfer.curves`."""
        seeds = (~np.isnan(self.losses)).sum(axis=0)
        diverged = np.isinf(self.losses).sum(axis=0)
        return [
            {"scale": self.scale, "log2_hp": x, "loss": y, "seeds": int(n), "diverged": int(d)}
            for x, y, n, d in zip(self.x, self.mean, seeds, diverged, strict=True)
        ]

    def summary(self) -> dict[str, object]:
        """The optimum as a row of `Transfer.optima`."""
        o = self.optimum
        return {
            "scale": self.scale,
            "log2_opt": o.x,
            "lo": o.lo,
            "hi": o.hi,
            "log2_grid": o.grid,
            "best": o.loss,
            "curvature": o.curvature,
            "flag": o.flag,
            "interval": o.interval,
            "diverged": int(np.isinf(self.losses).sum()),
        }

    def at(self, x: float) -> float:
        """Mean loss at a position: interpolated between two grid points, NaN outside the grid."""
        near = np.flatnonzero(np.abs(self.x - x) < 1e-6)
        if len(near):
            return float(self.mean[near[0]])
        right = int(np.searchsorted(self.x, x))
        if right in (0, len(self.x)):
            return float("nan")
        if np.isinf(self.mean[right - 1 : right + 1]).any():
            return float("inf")
        return float(np.interp(x, self.x, self.mean))


@dataclass(frozen=True)
class Drift:
    """How the optimum moves with scale, in octaves per doubling; a row of `Transfer.drift`.

    Attributes:
        slope: least squares over the optima.
        lo: lower end of its 95 % interval.
        hi: upper end.
        edges: how many of the optima lie at an end of their grid.
    """

    slope: float
    lo: float
    hi: float
    edges: int


@dataclass(frozen=True)
class Regret:
    """What reusing one scale's best value costs at another; a row of `Transfer.regret`.

    Attributes:
        tuned_at: the scale whose best grid point is reused.
        evaluated_at: the scale where it is reused.
        loss: the loss there.
        regret: the same above the best loss of that scale.
        share: regret over what growing from the one scale to the other gains; NaN where that is
            nothing.
        status: ``"ok"``, ``"lost"`` (share >= 1), ``"diverged"`` or ``"out of grid"``.
    """

    tuned_at: float
    evaluated_at: float
    loss: float
    regret: float
    share: float
    status: str


def loss_curve(scale: float, runs: pd.DataFrame, name: str, draws: int, seed: int) -> Curve:
    """The curve through the runs at one scale.

    Args:
        scale: the scale.
        runs: columns ``x, seed, loss``, as from `tidy_runs`; one run at least did not diverge.
        name: what errors call the curve.
        draws: size of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        the curve with its optimum.

    Raises:
        ValueError: there are fewer than three grid points.
    """
    # A pivot would drop the difference between "diverged" (inf) and "not run" (NaN) for columns
    # that are all NaN, so the grid is made first.
    grid = np.unique(runs["x"])
    if len(grid) < 3:
        raise ValueError(f"{name}: an optimum needs at least three grid points, got {len(grid)}")
    losses = (
        runs.pivot(index="seed", columns="x", values="loss")
        .reindex(columns=grid)
        .to_numpy(dtype=float)
    )
    optimum = find_optimum(grid, losses, draws=draws, seed=seed)
    mean = np.array([np.mean(c[~np.isnan(c)]) for c in losses.T])
    return Curve(scale, grid, losses, mean, optimum)


def drift_of(curves: Sequence[Curve]) -> Drift:
    """The drift of the optimum over curves in order of scale, with a bootstrap interval."""
    scale = np.array([c.scale for c in curves])
    slope = _slope(scale, np.array([c.optimum.x for c in curves]))
    draws = _slope(scale, np.stack([c.optimum.draws for c in curves], axis=1))
    lo, hi = np.quantile(draws, [0.025, 0.975])
    edges = sum(c.optimum.flag == "edge" for c in curves)
    return Drift(float(slope), float(lo), float(hi), edges)


def regret_of(source: Curve, target: Curve) -> Regret:
    """What the best grid point of one curve costs on another."""
    loss = target.at(source.optimum.grid)
    regret = loss - target.optimum.loss
    gain = source.optimum.loss - target.optimum.loss
    share = regret / gain if gain > 0 and target.scale > source.scale else float("nan")
    status = "ok"
    if np.isnan(loss):
        status = "out of grid"
    elif np.isinf(loss):
        status = "diverged"
    elif share >= 1:
        status = "lost"
    return Regret(source.scale, target.scale, loss, regret, share, status)


def speed_of(curves: Sequence[Curve]) -> dict[str, object]:
    """How fast regret at the largest scale falls beside the gap in loss: a row of `Transfer.speed`.

    The regret is that of the fitted parabola, because on the grid it is mostly exactly zero.
    """
    target, sources = curves[-1], curves[:-1]
    away = np.array([c.optimum.x - target.optimum.x for c in sources])
    regret = 0.5 * target.optimum.curvature * away**2
    gap = np.array([c.optimum.loss - target.optimum.loss for c in sources])
    slopes = []
    for y in (regret, gap):
        usable = y > 0
        if usable.sum() < 3:
            slopes.append(float("nan"))
            continue
        sizes = np.array([c.scale for c in sources])[usable]
        slopes.append(float(_slope(sizes, np.log2(y[usable]))))
    known = np.isfinite(slopes).all()
    return {
        "regret_slope": slopes[0],
        "gap_slope": slopes[1],
        "fast": bool(slopes[0] < slopes[1]) if known else None,
    }


def _slope(scale: Array, y: Array) -> Array:
    """Least-squares slope of y, shape (..., scales), over log2 of the scale."""
    u = np.log2(scale)
    u = u - u.mean()
    return np.asarray(y @ u / (u @ u))
