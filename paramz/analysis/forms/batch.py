"""Chinchilla's law with the batch size: tokens in large batches count for less.

McCandlish et al., arXiv 1812.06162, eq. 2.7: reaching a loss in batches of size ``batch`` takes
(1 + batch / critical) times the examples that small batches would take. So the D of Hoffmann et
al., arXiv 2203.15556, eq. 2, is divided by that factor. The internal parameters are those of their
law, and log critical - mean log batch.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.starts import project


def _evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
    e, a, b, alpha, beta, c = (theta[:, i, None] for i in range(6))
    waste = np.logaddexp(0.0, logs[2] - c)
    parts = np.stack(np.broadcast_arrays(e, a - alpha * logs[0], b - beta * (logs[1] - waste)))
    top = parts.max(axis=0)
    share = np.exp(parts - top)
    total = share.sum(axis=0)
    share /= total
    large = np.exp(logs[2] - c - waste)  # batch / (batch + critical)
    slopes = [
        share[0],
        share[1],
        share[2],
        -share[1] * logs[0],
        -share[2] * (logs[1] - waste),
        -share[2] * beta * large,
    ]
    return top + np.log(total), np.stack(slopes, axis=1)


def _starts(logs: Array, log_y: Array) -> Array:
    def basis(at: tuple[float, ...]) -> Array:
        alpha, beta, c = at
        waste = np.logaddexp(0.0, logs[2] - c)
        return np.exp([0 * logs[0], -alpha * logs[0], -beta * (logs[1] - waste)])

    powers = np.geomspace(0.05, 1.5, 10).tolist()
    ends = np.linspace(logs[2].min() - 2, logs[2].max() + 2, 7).tolist()
    return project(list(product(powers, powers, ends)), basis, log_y)


def _natural(theta: Array, means: Array) -> Array:
    e, a, b, alpha, beta, c = theta.T
    return np.stack(
        [
            np.exp(e),
            np.exp(a + alpha * means[0]),
            np.exp(b + beta * means[1]),
            alpha,
            beta,
            np.exp(c + means[2]),
        ],
        axis=1,
    )


BATCH = Form(
    name="batch",
    formula="E + A / N^alpha + B / (D / (1 + batch / critical))^beta",
    inputs=("N", "D", "batch"),
    params=("E", "A", "B", "alpha", "beta", "critical"),
    evaluate=_evaluate,
    starts=_starts,
    natural=_natural,
    vanishing=("E",),
    falling=(("alpha", "N"), ("beta", "D")),
)
