"""The best learning rate and batch size together: a surface over the logarithms of both."""

from __future__ import annotations

from collections.abc import Sequence

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
        batch. Flag is ``"edge"`` where the minimum lies outside the points, ``"saddle"`` where the
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


def _surface(runs: pd.DataFrame, draws: int, rng: np.random.Generator) -> dict[str, object]:
    """The minimum of the surface through one group's runs at one scale."""
    nothing = dict.fromkeys(
        ("hp", "hp_lo", "hp_hi", "batch", "batch_lo", "batch_hi", "slope"), float("nan")
    )
    runs = runs[np.isfinite(runs["loss"])]
    if runs.empty:
        return nothing | {"flag": "diverged"}
    low = runs["loss"].min()
    near = runs[runs["loss"] <= low + _WINDOW * (runs["loss"].max() - low)]
    seeds = near["seed"].nunique()
    freedom = len(near) - seeds - _TERMS
    if freedom < 1 or near["x"].nunique() < 3 or near["b"].nunique() < 3:
        return nothing | {"flag": "too few"}
    center = near[["x", "b"]].mean().to_numpy()
    x, b = (near[["x", "b"]].to_numpy() - center).T
    terms = pd.DataFrame({"x": x, "b": b, "xx": x * x, "xb": x * b, "bb": b * b, "y": near["loss"]})
    terms = terms - terms.groupby(near["seed"].to_numpy()).transform("mean").to_numpy()
    design, y = terms.iloc[:, :_TERMS].to_numpy(), terms["y"].to_numpy()
    fit, *_ = np.linalg.lstsq(design, y, rcond=None)
    noise = float(np.sum((y - design @ fit) ** 2) / freedom)
    spread = noise * np.linalg.pinv(design.T @ design)
    drawn = rng.multivariate_normal(np.zeros(_TERMS), spread, size=draws, method="eigh")
    drawn = fit + drawn / np.sqrt(rng.chisquare(freedom, (draws, 1)) / freedom)
    best, convex = _minimum(fit[None])
    if not convex[0]:
        return nothing | {"flag": "saddle"}
    others, whole = _minimum(drawn)
    lo, hi = np.quantile(others[whole], [0.025, 0.975], axis=0)
    # A surface without a minimum in one draw of twenty leaves both open.
    if whole.mean() < 0.95:
        lo, hi = np.full(2, -np.inf), np.full(2, np.inf)
    inside = x.min() <= best[0, 0] <= x.max() and b.min() <= best[0, 1] <= b.max()
    at, lo, hi = (2.0 ** (v + center) for v in (best[0], lo, hi))
    return {
        "hp": at[0],
        "hp_lo": lo[0],
        "hp_hi": hi[0],
        "batch": at[1],
        "batch_lo": lo[1],
        "batch_hi": hi[1],
        "slope": -fit[3] / (2 * fit[2]),
        "flag": "" if inside else "edge",
    }


def _minimum(fits: Array) -> tuple[Array, Array]:
    """Where each quadratic is lowest, shape (fits, 2), and whether it is lowest anywhere."""
    a, c, d, e, f = fits.T
    det = 4 * d * f - e**2
    convex = (d > 0) & (det > 0)
    safe = np.where(convex, det, 1.0)
    return np.stack([(e * c - 2 * f * a) / safe, (e * a - 2 * d * c) / safe], axis=1), convex
