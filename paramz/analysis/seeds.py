"""Losses of several seeds without the effect of each: what only positions explain."""

from __future__ import annotations

import numpy as np

from paramz.analysis.columns import Array, Mask


def normal_equations(basis: Array, losses: Array) -> tuple[Array, Array, float, int]:
    """Gram matrix, moments, sum of squares and rows left, each seed's mean taken out.

    Args:
        basis: columns at the positions, shape (points, columns).
        losses: shape (seeds, points); NaN for a run that does not exist.
    """
    there = ~np.isnan(losses)
    there &= (there.sum(axis=1) > 1)[:, None]  # a seed with one run says nothing
    losses, there = losses[there.any(axis=1)], there[there.any(axis=1)]
    count = there.sum(axis=1, keepdims=True)
    y = np.where(there, losses, 0.0)
    y = np.where(there, y - y.sum(axis=1, keepdims=True) / count, 0.0)
    means = there @ basis / count
    gram = basis.T @ (there.sum(axis=0)[:, None] * basis) - means.T @ (count * means)
    return gram, basis.T @ y.sum(axis=0), float((y**2).sum()), int(there.sum() - len(there))


def pure_noise(losses: Array) -> float:
    """Noise from how seeds differ beyond an offset; inf where there is too little of it."""
    there = ~np.isnan(losses)
    freedom = there.sum() - len(losses) - losses.shape[1] + 1
    if len(losses) < 2 or freedom < 2:
        return np.inf
    rest = residuals(losses)
    return float(np.sqrt(np.nansum(rest**2) / freedom)) or np.inf


def residuals(losses: Array) -> Array:
    """Losses without the effects of seeds and of positions, NaN where there is no run."""
    there = ~np.isnan(losses)
    rest = losses - losses[there].mean()
    for _ in range(1 if there.all() else 30):
        rest = rest - _mean(rest, there, 1)
        rest = rest - _mean(rest, there, 0)
    return np.asarray(rest)


def _mean(values: Array, there: Mask, axis: int) -> Array:
    total = np.where(there, values, 0.0).sum(axis=axis, keepdims=True)
    return np.asarray(total / np.maximum(there.sum(axis=axis, keepdims=True), 1))
