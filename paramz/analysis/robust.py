"""Many robust fits at once: damped Newton for the Huber loss, vectorized over starts or resamples.

The Huber loss of log residuals is what scaling laws are fitted with. With the usual delta = 1e-3 it
is nearly an absolute value: few residuals lie inside delta, its second derivative comes from those
few alone, and a general optimizer, which sees an objective of 1e-3 whose changes fall below its
default tolerances, stops early (that is how the published Chinchilla exponents went wrong;
Besiroglu et al., arXiv 2404.10102). Here the objective is divided by delta squared, and the step
uses the exact second derivative of the loss. Damping adds a multiple of the weights of iteratively
reweighted least squares, whose steps always descend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array

# theta (fits, parameters) -> values (fits, rows), Jacobian (fits, parameters, rows)
Evaluate = Callable[[Array], tuple[Array, Array]]

# Work arrays of at most this many numbers stay in a core's cache.
_CHUNK = 200_000
# A quarter of published tables needs more than 300; 3000 reach the optimum in all that were tried.
_MOST_STEPS = 3000


@dataclass(frozen=True)
class Fits:
    """Minima of the same model on several resamples, or from several starts.

    Attributes:
        theta: the parameters, shape (fits, parameters).
        objective: sum of Huber losses, not scaled, shape (fits,).
        converged: whether the predicted gain of a further step vanished, shape (fits,).
    """

    theta: Array
    objective: Array
    converged: Array


def huber(residual: Array, delta: float) -> Array:
    """The Huber loss: r^2 / 2 within delta, delta (|r| - delta / 2) beyond.

    >>> huber(np.array([0.5, 3.0]), 1.0)
    array([0.125, 2.5  ])
    """
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    return np.asarray(inner * (size - 0.5 * inner))


def minimize(
    evaluate: Evaluate,
    start: Array,
    target: Array,
    *,
    delta: float,
    weights: Array | None = None,
    tolerance: float = 1e-12,
) -> Fits:
    """Minimize the weighted sum of Huber losses of value - target, for each fit on its own.

    Args:
        evaluate: the model.
        start: shape (fits, parameters).
        target: shape (rows,), or (fits, rows) where each fit has a target of its own.
        delta: where the loss turns from square to linear.
        weights: shape (fits, rows), for instance how often a resample holds each row.
        tolerance: a fit ends when the gain it expects from its next step is below this fraction of
            its objective.

    Returns:
        the minima, in the order of the starts.
    """
    fits, size = start.shape
    rows = target.shape[-1]
    target = np.broadcast_to(target, (fits, rows))
    weight = np.ones((1, rows)) if weights is None else weights
    weight = np.broadcast_to(weight, (fits, rows))
    step = max(1, _CHUNK // (rows * size))
    parts = [
        _minimize(evaluate, start[s], target[s], weight[s], delta, tolerance)
        for s in (slice(i, i + step) for i in range(0, fits, step))
    ]
    return Fits(
        np.concatenate([p.theta for p in parts]),
        np.concatenate([p.objective for p in parts]),
        np.concatenate([p.converged for p in parts]),
    )


def _minimize(
    evaluate: Evaluate,
    start: Array,
    target: Array,
    weight: Array,
    delta: float,
    tolerance: float,
) -> Fits:
    """The minima of fits that are few enough to be worked on at once."""
    theta = start.copy()
    fits, size = theta.shape
    damping = np.ones(fits)
    done = np.zeros(fits, dtype=bool)
    value, jacobian = evaluate(theta)
    residual = value - target
    objective = _objective(residual, weight, delta)
    active = np.arange(fits)
    for _ in range(_MOST_STEPS):
        step, gain = _step(
            residual[active], jacobian[active], weight[active], damping[active], delta
        )
        trial = theta[active] + step
        with np.errstate(over="ignore", invalid="ignore"):
            value, slope = evaluate(trial)
            moved = value - target[active]
            new = _objective(moved, weight[active], delta)
        better = new <= objective[active]
        took = active[better]
        theta[took], residual[took] = trial[better], moved[better]
        jacobian[took], objective[took] = slope[better], new[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 6.0), 1e-9, 1e12)
        # A gain below rounding is no gain. The floor is for data that the law fits exactly.
        done[active] = gain <= tolerance * np.maximum(objective[active], 1e-6)
        active = active[~done[active]]
        if not len(active):
            break
    return Fits(theta, objective * delta**2, done)


def _objective(residual: Array, weight: Array, delta: float) -> Array:
    total = np.einsum("bn,bn->b", weight, huber(residual / delta, 1.0))
    return np.where(np.isfinite(total), total, np.inf)


def _step(
    residual: Array, jacobian: Array, weight: Array, damping: Array, delta: float
) -> tuple[Array, Array]:
    """The damped Newton step and the decrease of the scaled objective it should bring."""
    size = np.maximum(np.abs(residual) / delta, 1e-300)
    reweighted = 1.0 / np.maximum(size, 1.0)
    inside = (size <= 1.0).astype(np.float64)
    curvature: Array = (weight / delta**2) * (inside + damping[:, None] * reweighted)
    pull = (weight / delta) * np.clip(residual / delta, -1.0, 1.0)
    hessian = (jacobian * curvature[:, None]) @ jacobian.transpose(0, 2, 1)
    gradient = (jacobian @ pull[..., None])[..., 0]
    # A parameter whose term has vanished, so that nothing depends on it, must not make the Hessian
    # singular.
    diagonal = np.einsum("bii->bi", hessian)
    diagonal += 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    step = np.asarray(-np.linalg.solve(hessian, gradient[..., None])[..., 0], dtype=np.float64)
    return step, -np.einsum("bi,bi->b", gradient, step)
