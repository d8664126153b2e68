"""The best learning rate and batch size together: a surface over the logarithms of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from paramz.analysis.columns import positive
from paramz.analysis.runs import ALL, names_of_groups, tidy_runs
from paramz.analysis.statuses import ended
from paramz.analysis.surface import surface_through

# Points whose loss is within this share of the range of losses enter the surface. Where it departs
# from a quadratic there, those that are nearer say by themselves where it is lowest.
_WINDOW, _CLOSER = 0.5, 0.125


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

    A surface in log2 of both, with an effect for each seed, is fitted to the points in the lower
    half of the range of losses: a quadratic, and a rough departure from it that is as large as the
    losses ask for, as bowls are steeper on one side (`surface`). Where it is larger than the noise,
    the points in the lowest eighth say alone. Diverged runs are left out.

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
        batch (that of the quadratic: on average over the points). Flag is ``"edge"`` where the
        minimum lies outside the points or at the last of them (the optimum is then the lowest place
        among them, and its interval has no ends), ``"open"`` where surfaces that fit as well have
        none among the points, ``"saddle"`` where the surface has none, ``"too few"`` where the
        points do not determine a quadratic (at no more than six places, or on a line or a cross),
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
    above = runs["loss"] - runs["loss"].min()
    near = runs[above <= _WINDOW * above.max()]
    found = surface_through(near, draws, rng)
    if found is None:
        return nothing | {"flag": "too few"}
    if found.departs:
        closer = surface_through(runs[above <= _CLOSER * above.max()], draws, rng)
        if closer is not None and closer.inside and not closer.open:
            found = replace(closer, slope=found.slope)
    if not np.isfinite(found.best).all():
        return nothing | {"flag": "saddle"}
    return {
        "hp": 2.0 ** found.best[0],
        "hp_lo": 2.0 ** found.lo[0],
        "hp_hi": 2.0 ** found.hi[0],
        "batch": 2.0 ** found.best[1],
        "batch_lo": 2.0 ** found.lo[1],
        "batch_hi": 2.0 ** found.hi[1],
        "slope": found.slope,
        "flag": "edge" if not found.inside else "open" if found.open else "",
    }
