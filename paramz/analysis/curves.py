"""The loss curves of one group, a curve per scale, and what reusing one's best costs at another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, Mask
from paramz.analysis.optimum import Optimum, find_optimum
from paramz.analysis.window import mean_over_seeds


@dataclass(frozen=True, eq=False)
class Curve:
    """The losses at one scale over a grid of the hyperparameter, and their minimum.

    Attributes:
        scale: the scale.
        x: the grid, in log2 of the hyperparameter.
        losses: shape (seeds, grid); inf for a run that diverged, NaN for one that does not exist.
        mean: mean over seeds without the effects of which are there, shape (grid,).
        optimum: the minimum.
    """

    scale: float
    x: Array
    losses: Array
    mean: Array
    optimum: Optimum

    @property
    def level(self) -> float:
        """Loss of the smooth curve at its minimum."""
        return self.optimum.level

    @property
    def seeds(self) -> int:
        """How many seeds there are at most points of the grid."""
        return int(np.median((~np.isnan(self.losses)).sum(axis=0)))

    @property
    def at_end(self) -> bool:
        """Whether the minimum lies at an end of the grid, and not only may lie beyond one."""
        return bool(self.optimum.x <= self.x[0] or self.optimum.x >= self.x[-1])

    def rows(self) -> list[dict[str, object]]:
        """The curve as rows of `Transfer.curves`."""
        return rows_of(self.scale, self.x, self.losses)

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
            "seeds": self.seeds,
            "diverged": int(np.isinf(self.losses).sum()),
        }

    def above(self, x: Array) -> Array:
        """How far the smooth curve lies above its minimum.

        Args:
            x: positions, shape (positions,).

        Returns:
            shape (positions,): interpolated beyond the points that the smooth curve runs through,
            NaN outside the grid, inf where the nearest grid point diverged.
        """
        alive = np.isfinite(self.mean)
        height = np.interp(x, self.x[alive], self.mean[alive]) - self.level
        bowl = self.optimum.bowl
        if bowl is not None:
            height = np.where(self.is_smooth(x), bowl.at(x), height)
        nearest = np.abs(x[:, None] - self.x).argmin(axis=1)
        height = np.where(alive[nearest], np.maximum(height, 0.0), np.inf)
        outside = (x < self.x[0] - 1e-6) | (x > self.x[-1] + 1e-6)
        return np.where(outside, np.nan, height)

    def is_smooth(self, x: Array) -> Mask:
        """Whether the smooth curve says what the loss is at positions, shape (positions,).

        That is between the points that it runs through, and up to a neighbour that diverged; a
        cliff that was measured says more of the way there.
        """
        bowl = self.optimum.bowl
        if bowl is None:
            return np.zeros(len(x), dtype=bool)
        low, high = (
            fine if np.isinf(self.mean[np.abs(self.x - fine).argmin()]) else own
            for fine, own in zip(bowl.fine[[0, -1]], bowl.x[[0, -1]], strict=True)
        )
        return np.asarray((x >= low) & (x <= high))


@dataclass(frozen=True)
class Regret:
    """What reusing one scale's best value costs at another; a row of `Transfer.regret`.

    Attributes:
        tuned_at: the scale whose best value is reused.
        evaluated_at: the scale where it is reused.
        loss: the loss there, on the smooth curve.
        regret: the same above the lowest loss of that curve.
        lo: lower end of its 95 % interval, over where either optimum may lie.
        hi: upper end; inf where the value may diverge or lie outside the grid.
        share: regret over what growing from the one scale to the other gains; NaN where that is
            nothing.
        status: ``"ok"``, ``"lost"`` (share >= 1), ``"diverged"`` or ``"out of grid"``.
        sure: whether all of the interval has this status.
    """

    tuned_at: float
    evaluated_at: float
    loss: float
    regret: float
    lo: float
    hi: float
    share: float
    status: str
    sure: bool


def rows_of(scale: float, x: Array, losses: Array) -> list[dict[str, object]]:
    """The losses at one scale as rows of `Transfer.curves`, of shape (seeds, grid)."""
    mean = mean_over_seeds(losses)
    seeds = (~np.isnan(losses)).sum(axis=0)
    diverged = np.isinf(losses).sum(axis=0)
    alive = np.where(np.isinf(losses), np.nan, losses)
    low = np.where(np.isnan(alive), np.inf, alive).min(axis=0)
    high = np.where(np.isnan(alive), -np.inf, alive).max(axis=0)
    return [
        {
            "scale": scale,
            "log2_hp": at,
            "loss": mean[i],
            "low": low[i],
            "high": high[i],
            "seeds": int(seeds[i]),
            "diverged": int(diverged[i]),
        }
        for i, at in enumerate(x)
    ]


def over_the_grid(runs: pd.DataFrame) -> tuple[Array, Array]:
    """The grid of runs ``x, seed, loss`` at one scale, and their losses, shape (seeds, grid)."""
    # A pivot would drop the difference between "diverged" (inf) and "not run" (NaN) for columns
    # that are all NaN, so the grid is made first.
    grid = np.unique(runs["x"])
    table = runs.pivot(index="seed", columns="x", values="loss").reindex(columns=grid)
    return grid, table.to_numpy(dtype=float)


def loss_curve(scale: float, runs: pd.DataFrame, draws: int, seed: int) -> Curve:
    """The curve through the runs at one scale.

    Args:
        scale: the scale.
        runs: columns ``x, seed, loss``, as from `tidy_runs`; at three values of x or more, and one
            run at least did not diverge.
        draws: how many curves are drawn for the interval.
        seed: seed of the draws.

    Returns:
        the curve with its optimum.
    """
    grid, losses = over_the_grid(runs)
    optimum = find_optimum(grid, losses, draws=draws, seed=seed)
    return Curve(scale, grid, losses, mean_over_seeds(losses), optimum)


def regret_of(source: Curve, target: Curve) -> Regret:
    """What the best value of one curve costs on another, read off smooth curves."""
    regret = float(target.above(np.array([source.optimum.x]))[0]) if source is not target else 0.0
    drawn = _drawn_regret(source, target)
    gain = source.level - target.level
    if not (gain > 0 and target.scale > source.scale):
        gain = float("nan")
    share = regret / gain
    status, sure = "ok", True
    if np.isnan(regret):
        status, sure = "out of grid", bool(np.isnan(drawn).mean() > 0.95)
    elif np.isinf(regret):
        status, sure = "diverged", bool(np.isinf(drawn).mean() > 0.95)
    elif share >= 1:
        # A value that may diverge is lost, too, but one outside the grid is not known to be.
        status, sure = "lost", bool((drawn >= gain).mean() > 0.95)
    drawn = np.where(np.isnan(drawn), np.inf, drawn)
    lo = float(np.quantile(drawn, 0.025, method="lower"))
    hi = float(np.quantile(drawn, 0.975, method="higher"))
    # Drawn optima lie beside each other where the found ones agree: what was found belongs to it.
    lo, hi = (0.0, 0.0) if source is target else (min(lo, regret), max(hi, regret))
    return Regret(
        source.scale,
        target.scale,
        target.level + regret,
        regret,
        lo,
        hi,
        share,
        status,
        sure,
    )


def _drawn_regret(source: Curve, target: Curve) -> Array:
    """The regret of each drawn optimum on a drawn curve, shape (draws,)."""
    x = source.optimum.draws
    regret = target.above(x)
    bowl = target.optimum.bowl
    if bowl is None:
        return regret
    step = bowl.fine[1] - bowl.fine[0]
    at = np.clip((x - bowl.fine[0]) / step, 0, len(bowl.fine) - 1)
    left = np.minimum(at.astype(int), len(bowl.fine) - 2)
    rows = np.arange(len(x))
    share = at - left
    here = (1 - share) * bowl.curves[rows, left] + share * bowl.curves[rows, left + 1]
    inside = target.is_smooth(x) & np.isfinite(regret)
    return np.where(inside, here - bowl.curves.min(axis=1), regret)


def speed_of(curves: Sequence[Curve]) -> dict[str, object]:
    """How fast regret at the largest scale falls beside the gap in loss: a row of `Transfer.speed`.

    The regret is that of the curvature at the optimum, which resolves what is lost in noise.
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
        slopes.append(slope_over(sizes, np.log2(y[usable])))
    known = np.isfinite(slopes).all()
    return {
        "regret_slope": slopes[0],
        "gap_slope": slopes[1],
        "fast": bool(slopes[0] < slopes[1]) if known else None,
    }


def slope_over(scale: Array, y: Array) -> float:
    """Least-squares slope of y over log2 of the scale."""
    u = np.log2(scale)
    u = u - u.mean()
    return float(y @ u / (u @ u))
