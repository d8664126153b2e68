"""Do the training curves of all scales fall on one curve?

With hyperparameters that transfer, (L(t) - E) / (L(T) - E) against t / T is one curve for every
compute-optimally trained scale ("supercollapse", Qiu et al., arXiv 2507.02119); where they do not,
the curves part. E is chosen here to make them agree best. If it ends at a bound of its range, the
curves do not determine it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, numbers, positive, require

# The first tenth of training is warm-up and shows initialization more than learning.
START = 0.1


@dataclass(frozen=True)
class Collapse:
    """Normalized curves and how far they part.

    Attributes:
        curves: ``scale, progress, loss``: normalized, averaged over seeds.
        floor: the E that was taken off.
        spread: standard deviation across scales over the mean, averaged over progress.
        noise: the same across seeds within a scale; NaN with one seed.
        at_bound: whether the floor is zero or the lowest final loss: then it is not to be trusted.
    """

    curves: pd.DataFrame
    floor: float
    spread: float
    noise: float
    at_bound: bool


def collapse(
    df: pd.DataFrame,
    *,
    scale: str = "width",
    step: str = "step",
    loss: str = "loss",
    seed: str = "seed",
) -> Collapse:
    """Normalize the loss curves of a sweep over scales.

    Args:
        df: one row per logged step of each run.
        scale: column of the scale.
        step: column of the step, or of the tokens; each run ends at its last.
        loss: column of the loss.
        seed: column of the seed; may be absent.

    Returns:
        the curves and their spread.

    Raises:
        KeyError: a column is missing.
        ValueError: there is one scale only, or a column holds values that cannot be used.

    >>> rows = [{"width": w, "step": t, "loss": 1.5 + 40 / w * t**-0.5}
    ...         for w in (32, 64, 128) for t in range(1, 101)]
    >>> found = collapse(pd.DataFrame(rows))
    >>> round(found.floor, 2), found.spread < 0.01
    (1.5, True)
    """
    require(df, scale, step, loss)
    sizes = np.unique(positive(df, scale))
    if len(sizes) < 2:
        raise ValueError(f"a collapse compares scales, but {scale!r} has one value, {sizes[0]:g}")
    if not np.isfinite(numbers(df, loss)).all():
        raise ValueError(f"column {loss!r} holds losses that are not finite: leave those runs out")
    progress = np.linspace(START, 1, 60)
    runs: dict[float, Array] = {}
    for size in sizes:
        part = df[numbers(df, scale) == size]
        seeds = part.groupby(seed) if seed in df.columns else [(0, part)]
        runs[float(size)] = np.stack([_on_grid(r, step, loss, progress) for _, r in seeds])
    means = np.stack([c.mean(axis=0) for c in runs.values()])
    floors = np.linspace(0.0, 0.999 * means[:, -1].min(), 400)
    spreads = np.array([_spread(means, floor) for floor in floors])
    best = int(np.argmin(spreads))
    floor = float(floors[best])
    noises = [_spread(c, floor) for c in runs.values() if len(c) > 1]
    normal = (means - floor) / (means[:, -1:] - floor)
    curves = pd.DataFrame(
        {
            "scale": np.repeat(list(runs), len(progress)),
            "progress": np.tile(progress, len(runs)),
            "loss": normal.ravel(),
        }
    )
    return Collapse(
        curves,
        floor,
        float(spreads[best]),
        float(np.mean(noises)) if noises else float("nan"),
        best in (0, len(floors) - 1),
    )


def _on_grid(run: pd.DataFrame, step: str, loss: str, progress: Array) -> Array:
    """The losses of a run at these shares of its steps."""
    run = run.sort_values(step)
    t = numbers(run, step)
    return np.interp(progress, t / t[-1], numbers(run, loss))


def _spread(curves: Array, floor: float) -> float:
    normal = (curves - floor) / (curves[:, -1:] - floor)
    return float((normal.std(axis=0, ddof=1) / normal.mean(axis=0)).mean())
