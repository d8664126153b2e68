"""The law of Kaplan et al., arXiv 2001.08361, eq. 1.5, whose two terms stand under a power.

The internal parameters are k = u (log Nc - mean log N), u = alpha_N / alpha_D,
d = log Dc - mean log D, and log alpha_D.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.starts import best_ranked, least_squares


def _evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
    k, u, d, log_a = (theta[:, i, None] for i in range(4))
    a = np.exp(log_a)
    first, second = k - u * logs[0], d - logs[1]
    top = np.maximum(first, second)
    e1, e2 = np.exp(first - top), np.exp(second - top)
    inner = top + np.log(e1 + e2)
    s1, s2 = e1 / (e1 + e2), e2 / (e1 + e2)
    return a * inner, np.stack([a * s1, -a * s1 * logs[0], a * s2, a * inner], axis=1)


def _starts(logs: Array, log_y: Array) -> Array:
    found = []
    for alpha_n, alpha_d in product(np.geomspace(0.02, 1.0, 16), repeat=2):
        u, scaled = alpha_n / alpha_d, log_y / alpha_d
        columns = np.stack([np.exp(-u * logs[0] - scaled), np.exp(-logs[1] - scaled)])
        c, _ = least_squares(columns, np.ones(len(log_y)))
        # The transform to a linear problem stretches residuals by 1 / alpha_d.
        distance = float(np.linalg.norm(alpha_d * np.log(np.maximum(c @ columns, 1e-12))))
        k, d = np.log(np.maximum(c, 1e-6))
        found.append((distance, np.array([k, u, d, np.log(alpha_d)])))
    return best_ranked(found)


def _natural(theta: Array, means: Array) -> Array:
    k, u, d, log_a = theta.T
    a = np.exp(log_a)
    return np.stack([np.exp(k / u + means[0]), np.exp(d + means[1]), u * a, a], axis=1)


KAPLAN = Form(
    name="kaplan",
    formula="((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D",
    inputs=("N", "D"),
    params=("Nc", "Dc", "alpha_N", "alpha_D"),
    evaluate=_evaluate,
    starts=_starts,
    natural=_natural,
    falling=(("alpha_N", "N"), ("alpha_D", "D")),
)
