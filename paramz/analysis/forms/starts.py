"""Starts of a fit by variable projection (Golub & Pereyra 1973; for scaling laws arXiv 2603.22339).

On a coarse grid of exponents a law is linear in its coefficients, which non-negative least squares
finds exactly. The best few grid points are polished by the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paramz.analysis.columns import Array

# Grid points become starts by their rank in the projected objective: the best, and some further
# down, which lie in other valleys.
_RANKS = (0, 1, 2, 4, 8, 16, 32, 64)


def least_squares(columns: Array, target: Array) -> tuple[Array, float]:
    """Coefficients, none below zero, of columns that add up to a target, and the distance left.

    Args:
        columns: shape (coefficients, rows).
        target: shape (rows,).

    Returns:
        coefficients of shape (coefficients,), and the norm of the residuals.
    """
    from scipy.optimize import nnls  # half the start-up time of paramz.analysis

    coefficients, distance = nnls(columns.T, target)
    return coefficients, float(distance)


def best_ranked(found: Sequence[tuple[float, Array]]) -> Array:
    """The starts at some ranks from the best down.

    Args:
        found: pairs of an objective and a start.

    Returns:
        shape (starts, parameters).

    >>> best_ranked([(2.0, np.array([20.0])), (1.0, np.array([10.0])), (3.0, np.array([30.0]))])
    array([[10.],
           [20.],
           [30.]])
    """
    ordered = sorted(found, key=lambda pair: pair[0])
    return np.array([ordered[rank][1] for rank in _RANKS if rank < len(ordered)])


def project(
    grid: Sequence[tuple[float, ...]],
    basis: Callable[[tuple[float, ...]], Array],
    log_y: Array,
) -> Array:
    """Starts from non-negative least squares at each grid point.

    Residuals are relative, so that they are those of the logarithm to first order.

    Args:
        grid: values of the parameters in which the law is not linear.
        basis: what the coefficients multiply at a grid point, shape (coefficients, rows).
        log_y: log response, shape (rows,).

    Returns:
        log coefficients followed by the grid values, shape (starts, parameters).
    """
    # A coefficient of zero cannot be polished as a logarithm; a small share can.
    floor = 1e-3 * np.exp(log_y.min())
    ones = np.ones(len(log_y))
    found = []
    for at in grid:
        coefficients, distance = least_squares(basis(at) * np.exp(-log_y), ones)
        found.append((distance, np.array([*np.log(np.maximum(coefficients, floor)), *at])))
    return best_ranked(found)
