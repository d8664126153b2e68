"""Measures of transfer that others report: sensitivity, and how well a power law holds the optima.

The sensitivity to the learning rate is that of Wortsman et al. 2023 (arXiv 2309.14322): the mean
over a log-uniform learning rate of min(loss, loss at the start), above the lowest loss.

The others follow Kalra and Barkeshli 2026 (arXiv 2605.21486), who judge a fit to the best
hyperparameters by its quality, by how robust it is to errors of extrapolation, and by the loss that
a parametrization costs in the limit. Their formulas could not be read here; these are paramz's own:

- error: root mean square of the optima about the power law hp = c * scale^slope, in octaves;
- scatter: the part of it that the optima's own intervals do not explain, in octaves;
- robustness: the exponent k in curvature ~ scale^k, so that missing the optimum by a given number
  of octaves costs scale^k; below zero it costs less in larger models;
- floor: E of best loss = E + A * scale^-a over four scales or more;
- asymptotic regret: the floor above the lowest floor of all groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array
from paramz.analysis.curves import Curve, slope_over
from paramz.analysis.drift import Line

# Exponents of the best loss among which that with the least squares is taken.
_EXPONENTS = np.geomspace(0.05, 3.0, 120)


def sensitivity_of(curves: Sequence[Curve], start: float | None = None) -> list[dict[str, float]]:
    """What a learning rate drawn at random costs on average, at each scale.

    Args:
        curves: the curves of one group.
        start: loss at the start of training; by default the highest finite loss of the group.

    Returns:
        ``scale, sensitivity, lo, hi, cap``: over log2 of the hyperparameter from lo to hi, the
        range that all curves share (NaN where there is none), with losses capped at ``cap``.
    """
    finite = np.concatenate([c.mean[np.isfinite(c.mean)] for c in curves])
    cap = float(finite.max()) if start is None else start
    lo, hi = max(c.x[0] for c in curves), min(c.x[-1] for c in curves)
    found = []
    for curve in curves:
        value = float("nan")
        if hi > lo:
            y = np.minimum(curve.mean, cap)
            x = np.unique(np.concatenate([[lo, hi], curve.x[(curve.x > lo) & (curve.x < hi)]]))
            y = np.interp(x, curve.x, y)
            value = float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / (hi - lo) - curve.level)
        found.append(
            {"scale": curve.scale, "sensitivity": max(value, 0.0), "lo": lo, "hi": hi, "cap": cap}
        )
    return found


def quality_of(groups: Mapping[str, tuple[Sequence[Curve], Line]]) -> pd.DataFrame:
    """How well a power law holds the optima of each group, and what it costs in the limit.

    Args:
        groups: the curves of each group in order of scale, and the line through their optima.

    Returns:
        ``group, error, scatter, robustness, floor, asymptotic_regret``; NaN where fewer than three
        optima lie inside their grids (floor and asymptotic regret: where there are fewer than four
        scales).
    """
    rows = [{"group": name} | _quality(*known) for name, known in groups.items()]
    table = pd.DataFrame(rows)
    table["asymptotic_regret"] = table["floor"] - table["floor"].min()
    return table


def _quality(curves: Sequence[Curve], line: Line) -> dict[str, float]:
    inside = [c for c in curves if c.x[0] < c.optimum.x < c.x[-1]]
    error = scatter = robustness = float("nan")
    if len(inside) >= 3 and np.isfinite(line.drift.slope):
        off = np.array([c.optimum.x - line.at(c.scale)[0] for c in inside])
        own = np.array([np.std(c.optimum.draws) for c in inside])
        # Two of the degrees of freedom went into the line.
        square = float(np.sum(off**2) / (len(off) - 2))
        error = float(np.sqrt(np.mean(off**2)))
        scatter = float(np.sqrt(max(square - np.mean(own**2), 0.0)))
        bends = np.array([c.optimum.curvature for c in inside])
        if (bends > 0).all():
            robustness = slope_over(np.array([c.scale for c in inside]), np.log2(bends))
    return {
        "error": error,
        "scatter": scatter,
        "robustness": robustness,
        "floor": _floor(np.array([c.scale for c in curves]), np.array([c.level for c in curves])),
    }


def _floor(scale: Array, best: Array) -> float:
    """E of the least-squares fit of E + A * scale^-a with A >= 0; NaN for fewer than four."""
    if len(scale) < 4:
        return float("nan")
    power = (scale / scale[0]) ** -_EXPONENTS[:, None]
    away = power - power.mean(axis=1, keepdims=True)
    height = np.maximum((away @ best) / (away**2).sum(axis=1), 0.0)
    floor = best.mean() - height * power.mean(axis=1)
    rest = best - floor[:, None] - height[:, None] * power
    return float(floor[np.argmin((rest**2).sum(axis=1))])
