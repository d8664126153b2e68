"""Did the hyperparameter transfer? The optimum's drift with scale, and what reusing it costs.

Both questions are asked because each alone misleads: an optimum that drifts on a flat bowl costs
nothing, and a small relative regret means little where the loss is near zero. Regret is therefore
given in units of loss and as a share of what growing the model gains.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array
from paramz.analysis.optimum import Optimum, find_optimum
from paramz.analysis.runs import tidy_runs

# Up to this drift, in octaves per doubling, a sweep counts as transferred: a factor 1.19 in the
# hyperparameter for each doubling of the scale.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Verdict:
    """The answer for one group.

    Attributes:
        transfers: True or False; None where the sweep cannot tell.
        sentence: The answer with its numbers.
    """

    transfers: bool | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Transfer:
    """What a sweep says about transfer; tables are indexed by position, one row per case.

    Attributes:
        hp: Name of the hyperparameter's column; positions are given as its log2.
        loss: Name of the loss column.
        scale: Name of the scale's column.
        curves: `group, scale, log2_hp, loss, seeds, diverged`: the seed-averaged losses, inf
            where a seed diverged.
        optima: `group, scale, log2_opt, lo, hi, log2_grid, best, curvature, flag, interval,
            diverged`: the optimum of each curve (see `Optimum`) and its count of diverged runs.
        drift: `group, slope, lo, hi, edges`: octaves per doubling of the scale, and how many of
            the optima lie at an end of the grid.
        regret: `group, tuned_at, evaluated_at, loss, regret, share, status`: the loss at
            `evaluated_at` with the best value found at `tuned_at`, above the best loss there;
            `share` divides it by what growing from the one scale to the other gains. Status is
            "ok", "lost" (share >= 1: the larger model is no better than the smaller one),
            "diverged" or "out of grid".
        speed: `group, regret_slope, gap_slope, fast`: log-log slopes against scale of the regret
            at the largest scale and of the loss gap to it. Transfer is fast where regret falls
            more steeply (Ghosh, Wu & Bietti, arXiv 2512.22768).
        verdicts: The answer for each group, as a sentence with its numbers.
    """

    hp: str
    loss: str
    scale: str
    curves: pd.DataFrame
    optima: pd.DataFrame
    drift: pd.DataFrame
    regret: pd.DataFrame
    speed: pd.DataFrame
    verdicts: dict[str, Verdict]

    @property
    def groups(self) -> list[str]:
        """The groups, in order of appearance."""
        return list(self.verdicts)

    def comparison(self) -> pd.DataFrame:
        """Groups on equal terms: at each scale, the best loss of each at its own best value.

        Returns:
            Scales down, groups across.
        """
        return self.optima.pivot(index="scale", columns="group", values="best")[self.groups]


def transfer(
    df: pd.DataFrame,
    *,
    hp: str = "lr",
    loss: str = "loss",
    scale: str = "width",
    by: str | Sequence[str] = "parametrization",
    seed: str = "seed",
    draws: int = 1000,
) -> Transfer:
    """Measure the transfer of a hyperparameter across a scale.

    Runs whose loss is not finite, or whose `status` column says "diverged", are kept as censored:
    a grid point where a seed diverged cannot be an optimum, and transferring onto it fails. Runs
    with status "failed" (an error, not a measurement) are left out.

    An error names the column, row or curve where a column is missing or holds no usable numbers,
    where two runs share group, scale, hyperparameter and seed, where there is one scale only, and
    where a curve has fewer than three grid points.

    Args:
        df: One row per run.
        hp: Column of the hyperparameter, as its value (not its logarithm).
        loss: Column of the loss.
        scale: Column of the scale: width, depth, parameters.
        by: Column or columns that split the runs into groups; absent ones are ignored when
            left at the default.
        seed: Column of the seed; without it every run is its own grid point.
        draws: Bootstrap size.

    Returns:
        The tables and verdicts.

    >>> rows = [{"width": w, "lr": 2.0**x, "loss": 2 + 9 / w + 0.1 * (x + 6.2) ** 2, "seed": s}
    ...         for w in (32, 64, 128) for x in range(-10, -2) for s in (0, 1)]
    >>> found = transfer(pd.DataFrame(rows))
    >>> print(found.verdicts["all"])
    all: best lr moves +0.00 octave per doubling of width (95% +0.00 to +0.00) from 32 to 128,
    and width 128 at the lr tuned at width 32 costs 0 in loss (0% of the gain): it transfers.
    """
    runs = tidy_runs(df, hp=hp, loss=loss, scale=scale, by=by, seed=seed)
    curves, optima, drift, regret, speed = [], [], [], [], []
    verdicts: dict[str, Verdict] = {}
    for group in runs["group"].unique():
        part = runs[runs["group"] == group]
        sizes = np.unique(part["scale"])
        cells = {float(s): part[part["scale"] == s] for s in sizes}
        # Where every run diverged there is no optimum, but the others still have theirs.
        dead = [s for s, cell in cells.items() if np.isinf(cell["loss"]).all()]
        found = [
            _curve(s, cell, f"{group}, {scale} {s:g}", draws, order)
            for order, (s, cell) in enumerate(cells.items())
            if s not in dead
        ]
        if len(found) < 2:
            raise ValueError(
                f"{group}: transfer needs runs that did not diverge at two values of {scale!r} or "
                f"more, got {', '.join(f'{c.scale:g}' for c in found) or 'none'}"
            )
        moved, costs = _drift(found), [_regret(a, b) for a in found for b in found]
        name = {"group": group}
        curves += [name | row for c in found for row in c.rows()]
        optima += [name | c.summary() for c in found]
        drift.append(name | asdict(moved))
        regret += [name | asdict(cost) for cost in costs]
        speed.append(name | _speed(found))
        ends = (found[0].scale, found[-1].scale)
        cost = next(c for c in costs if (c.tuned_at, c.evaluated_at) == ends)
        verdicts[group] = _verdict(group, hp, scale, found, moved, cost, dead)
    return Transfer(
        hp,
        loss,
        scale,
        pd.DataFrame(curves),
        pd.DataFrame(optima),
        pd.DataFrame(drift),
        pd.DataFrame(regret),
        pd.DataFrame(speed),
        verdicts,
    )


@dataclass(frozen=True)
class _Drift:
    slope: float
    lo: float
    hi: float
    edges: int


@dataclass(frozen=True)
class _Regret:
    tuned_at: float
    evaluated_at: float
    loss: float
    regret: float
    share: float
    status: str


@dataclass(frozen=True)
class _Curve:
    """One loss curve: a grid, its mean losses, and the optimum."""

    scale: float
    x: Array
    losses: Array  # (seeds, grid)
    mean: Array
    optimum: Optimum

    def rows(self) -> list[dict[str, object]]:
        seeds = (~np.isnan(self.losses)).sum(axis=0)
        diverged = np.isinf(self.losses).sum(axis=0)
        return [
            {"scale": self.scale, "log2_hp": x, "loss": y, "seeds": int(n), "diverged": int(d)}
            for x, y, n, d in zip(self.x, self.mean, seeds, diverged, strict=True)
        ]

    def summary(self) -> dict[str, object]:
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
        """Mean loss at a grid position; between two points interpolated, NaN outside."""
        near = np.flatnonzero(np.abs(self.x - x) < 1e-6)
        if len(near):
            return float(self.mean[near[0]])
        right = int(np.searchsorted(self.x, x))
        if right in (0, len(self.x)):
            return float("nan")
        if np.isinf(self.mean[right - 1 : right + 1]).any():
            return float("inf")
        return float(np.interp(x, self.x, self.mean))


def _curve(scale: float, cell: pd.DataFrame, name: str, draws: int, order: int) -> _Curve:
    # A pivot would drop the difference between "diverged" (inf) and "not run" (NaN) for columns
    # that are all NaN, so the grid is made first.
    grid = np.unique(cell["x"])
    if len(grid) < 3:
        raise ValueError(f"{name}: an optimum needs at least three grid points, got {len(grid)}")
    losses = (
        cell.pivot(index="seed", columns="x", values="loss")
        .reindex(columns=grid)
        .to_numpy(dtype=float)
    )
    optimum = find_optimum(grid, losses, draws=draws, seed=order)
    mean = np.array([np.mean(c[~np.isnan(c)]) for c in losses.T])
    return _Curve(scale, grid, losses, mean, optimum)


def _slope(scale: Array, y: Array) -> Array:
    """Least-squares slope of y, shape (..., scales), over log2 of the scale."""
    u = np.log2(scale)
    u = u - u.mean()
    return np.asarray(y @ u / (u @ u))


def _drift(curves: list[_Curve]) -> _Drift:
    scale = np.array([c.scale for c in curves])
    slope = _slope(scale, np.array([c.optimum.x for c in curves]))
    draws = _slope(scale, np.stack([c.optimum.draws for c in curves], axis=1))
    lo, hi = np.quantile(draws, [0.025, 0.975])
    edges = sum(c.optimum.flag == "edge" for c in curves)
    return _Drift(float(slope), float(lo), float(hi), edges)


def _regret(source: _Curve, target: _Curve) -> _Regret:
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
    return _Regret(source.scale, target.scale, loss, regret, share, status)


def _speed(curves: list[_Curve]) -> dict[str, object]:
    """Regret here is the parabola's, for on the grid it is mostly exactly zero."""
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


def _verdict(
    group: str,
    hp: str,
    scale: str,
    curves: list[_Curve],
    drift: _Drift,
    cost: _Regret,
    dead: list[float],
) -> Verdict:
    small, large = curves[0], curves[-1]
    moves = (
        f"{group}: best {hp} moves {drift.slope:+.2f} octave per doubling of {scale} "
        f"(95% {drift.lo:+.2f} to {drift.hi:+.2f}) from {small.scale:g} to {large.scale:g}"
    )
    there = f"{scale} {large.scale:g} at the {hp} tuned at {scale} {small.scale:g}"
    if cost.status == "ok":
        gain = f" ({cost.share:.0%} of the gain)" if np.isfinite(cost.share) else ""
        moves += f", and {there} costs {cost.regret:.2g} in loss{gain}"
    elif cost.status == "lost":
        moves += (
            f", and {there} fails: loss {cost.loss:.3g} against {large.optimum.loss:.3g} at its "
            "own best"
        )
    elif cost.status == "diverged":
        moves += f", and {there} diverges"
    else:
        moves += f", and {there} was not run: it lies outside the grid there"
    transfers: bool | None = None
    failed = cost.status in ("lost", "diverged") or any(s > large.scale for s in dead)
    if failed or drift.lo > TOLERANCE or drift.hi < -TOLERANCE:
        transfers, answer = False, "it does not transfer"
    elif cost.status == "ok" and abs(drift.slope) <= TOLERANCE:
        transfers, answer = True, "it transfers"
    elif cost.status == "ok":
        answer = f"undecided, the interval reaches {TOLERANCE:g}: add seeds or grid points"
    else:
        answer = "undecided, widen the grid"
    at_edge = [f"{c.scale:g}" for c in curves if c.optimum.flag == "edge"]
    note = f" Optimum at the edge of the grid at {scale} {', '.join(at_edge)}." if at_edge else ""
    if dead:
        note += f" Every run diverged at {scale} {', '.join(f'{s:g}' for s in dead)}."
    return Verdict(transfers, f"{moves}: {answer}.{note}")
