"""The best learning rate and batch size together: a surface over the logarithms of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, positive
from paramz.analysis.runs import ALL, names_of_groups, tidy_runs
from paramz.analysis.statuses import ended

# Coefficients of a quadratic in two variables, without its constant.
_TERMS = 5
# Points whose loss is within this share of the range of losses enter the surface.
_WINDOW = 0.5


def joint_optimum(
    df: pd.DataFrame,
    *,
    hp: str = "lr",
    batch: str = "batch_size",
    loss: str = "loss",
    scale: str = "width",
    by: str | Sequence[str] = "parametrization",
    seed: str = "seed",
    draws: int = 400,
) -> pd.DataFrame:
    """The learning rate and batch size at which the loss is lowest, at each scale.

    A quadratic surface in log2 of both, with an effect for each seed, is fitted to the points in
    the lower half of the range of losses. Diverged runs are left out.

    Args:
        df: one row per run.
        hp: column of the hyperparameter.
        batch: column of the batch size.
        loss: column of the loss, at equal amounts of data or of steps, whichever is meant.
        scale: column of the scale.
        by: column or columns of the groups; the default may be absent.
        seed: column of the seed; may be absent.
        draws: how many surfaces are drawn for intervals.

    Returns:
        ``group, scale, hp, hp_lo, hp_hi, batch, batch_lo, batch_hi, slope, flag``: the optimum with
        95 % intervals, and by how many octaves the best hyperparameter moves per doubling of the
        batch. Flag is ``"edge"`` where the minimum lies outside the points, ``"open"`` where
        surfaces that fit as well have none, ``"saddle"`` where the
        surface has none, ``"too few"`` where there are fewer points than coefficients,
        ``"diverged"`` where no run is left.

    Raises:
        KeyError: a column is missing.
        ValueError: a column holds values that cannot be used, or the scale has one value.

    >>> rows = [{"width": w, "lr": 2.0**x, "batch_size": 2.0**b, "loss": 2 + 9 / w
    ...          + 0.02 * (x + 8 - b / 2) ** 2 + 0.01 * (b - 6) ** 2}
    ...         for w in (64, 128) for x in range(-8, -2) for b in range(4, 9)]
    >>> found = joint_optimum(pd.DataFrame(rows))
    >>> found[["scale", "hp", "batch", "slope"]].round(3).values.tolist()
    [[64.0, 0.031, 64.0, 0.5], [128.0, 0.031, 64.0, 0.5]]
    """
    names = [by] if isinstance(by, str) else list(by)
    if by == "parametrization" and by not in df.columns:
        names = []
    kept = ended(df)
    size = np.log2(positive(kept, batch))
    # The batch is a group of its own, so that runs which differ in it are told apart.
    runs = tidy_runs(kept, hp=hp, loss=loss, scale=scale, by=[*names, batch], seed=seed)
    group = names_of_groups(kept, names) if names else ALL
    runs = runs.assign(group=group, b=size)
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"group": name, "scale": s} | _surface(part, draws, rng)
        for (name, s), part in runs.groupby(["group", "scale"], sort=False)
    )


@dataclass(frozen=True, eq=False)
class _Quadratic:
    """A surface through points: where it is lowest, shape (2,), and how sure that is.

    Attributes:
        best: the minimum; not finite where there is none.
        lo: lower end of its 95 % interval.
        hi: upper end.
        slope: by how much the best x moves with b.
        open: surfaces that fit as well have no minimum.
    """

    best: Array
    lo: Array
    hi: Array
    slope: float
    open: bool


def _surface(runs: pd.DataFrame, draws: int, rng: np.random.Generator) -> dict[str, object]:
    """The minimum of the surface through one group's runs at one scale."""
    nothing = dict.fromkeys(
        ("hp", "hp_lo", "hp_hi", "batch", "batch_lo", "batch_hi", "slope"), float("nan")
    )
    runs = runs[np.isfinite(runs["loss"])]
    if runs.empty:
        return nothing | {"flag": "diverged"}
    above = runs["loss"] - runs["loss"].min()
    near = runs[above <= _WINDOW * above.max()]
    found = _through(near, draws, rng)
    if found is None:
        return nothing | {"flag": "too few"}
    if not np.isfinite(found.best).all():
        return nothing | {"flag": "saddle"}
    lo, hi = found.lo, found.hi
    # A bowl that is steeper on one side moves the vertex in proportion to how far points reach,
    # which is half as far in a quarter of the window.
    closer = _through(runs[above <= _WINDOW / 4 * above.max()], draws, rng)
    if closer is not None and np.isfinite(closer.best).all() and not closer.open:
        moved = closer.best - found.best
        seen = np.abs(moved) > (closer.hi - closer.lo) / 2
        lo = np.minimum(lo, np.where(seen, closer.lo, closer.best) + moved)
        hi = np.maximum(hi, np.where(seen, closer.hi, closer.best) + moved)
    points = near[["x", "b"]]
    inside = (points.min() <= found.best).all() and (found.best <= points.max()).all()
    return {
        "hp": 2.0 ** found.best[0],
        "hp_lo": 2.0 ** lo[0],
        "hp_hi": 2.0 ** hi[0],
        "batch": 2.0 ** found.best[1],
        "batch_lo": 2.0 ** lo[1],
        "batch_hi": 2.0 ** hi[1],
        "slope": found.slope,
        "flag": "edge" if not inside else "open" if found.open else "",
    }


def _through(runs: pd.DataFrame, draws: int, rng: np.random.Generator) -> _Quadratic | None:
    """The quadratic through points; None where there are too few."""
    seeds = pd.factorize(runs["seed"], use_na_sentinel=False)[0]  # an empty cell is one, too
    freedom = len(runs) - len(np.unique(seeds)) - _TERMS
    if freedom < 1 or (runs[["x", "b"]].nunique() < 3).any():
        return None
    center = runs[["x", "b"]].mean().to_numpy()
    x, b = (runs[["x", "b"]].to_numpy() - center).T
    terms = pd.DataFrame({"x": x, "b": b, "xx": x * x, "xb": x * b, "bb": b * b, "y": runs["loss"]})
    terms = terms - terms.groupby(seeds).transform("mean").to_numpy()
    design, y = terms.iloc[:, :_TERMS].to_numpy(), terms["y"].to_numpy()
    fit, *_ = np.linalg.lstsq(design, y, rcond=None)
    noise = float(np.sum((y - design @ fit) ** 2) / freedom)
    spread = noise * np.linalg.pinv(design.T @ design)
    drawn = rng.multivariate_normal(np.zeros(_TERMS), spread, size=draws, method="eigh")
    drawn = fit + drawn / np.sqrt(rng.chisquare(freedom, (draws, 1)) / freedom)
    best, convex = _minimum(fit[None])
    others, whole = _minimum(drawn)
    # A surface without a minimum in one draw of twenty leaves both open.
    wide = bool(whole.mean() < 0.95)
    lo, hi = np.full(2, -np.inf), np.full(2, np.inf)
    if not wide:
        lo, hi = np.quantile(others[whole], [0.025, 0.975], axis=0)
    where = best[0] + center if convex[0] else np.full(2, np.nan)
    return _Quadratic(where, lo + center, hi + center, float(-fit[3] / (2 * fit[2])), wide)


def _minimum(fits: Array) -> tuple[Array, Array]:
    """Where each quadratic is lowest, shape (fits, 2), and whether it is lowest anywhere."""
    a, c, d, e, f = fits.T
    det = 4 * d * f - e**2
    convex = (d > 0) & (det > 0)
    safe = np.where(convex, det, 1.0)
    return np.stack([(e * c - 2 * f * a) / safe, (e * a - 2 * d * c) / safe], axis=1), convex
