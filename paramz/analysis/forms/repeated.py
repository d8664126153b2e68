"""The law for repeated data of Muennighoff et al., arXiv 2305.16264, sec. 3.1 and app. A.

D tokens are seen, of which U are different. Each further epoch over them is worth less, and so are
parameters beyond what U tokens can feed:

    L = E + A / N'^alpha + B / D'^beta
    D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)),    U_N = min(N, N*(U))
    N' = U_N + U_N R_N (1 - exp(-(N / U_N - 1) / R_N))

where N*(U) is the size for which U tokens are compute-optimal, alpha A / N*^alpha = beta B /
U^beta. They report R_D* = 15.39 and R_N* = 5.31 (here R_D and R_N, which in the paper are numbers
of repetitions), with one exponent for both. Losses are those that the authors' code prints
(github.com/huggingface/datablations, "Parametric Fit"), to the last digit. The internal parameters
are those of Chinchilla's law and log R_D, log R_N.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.function import slopes
from paramz.analysis.forms.starts import project


def _worth(log_x: Array, log_unique: Array, log_r: Array) -> Array:
    """Logarithm of x when what exceeds ``unique`` loses its worth with the constant r."""
    log_unique = np.minimum(log_x, log_unique)
    excess = np.expm1(np.minimum(log_x - log_unique, 50.0))
    r = np.exp(np.clip(log_r, -20, 20))
    return np.asarray(log_unique + np.log1p(-r * np.expm1(-excess / r)))


def _value(theta: Array, logs: Array) -> Array:
    e, a, b, alpha, beta, log_rd, log_rn = (theta[:, i, None] for i in range(7))
    n, d, u = logs
    alpha, beta = np.maximum(alpha, 1e-3), np.maximum(beta, 1e-3)
    fed = (a - b + beta * u + np.log(alpha / beta)) / alpha
    tokens = _worth(d, u, log_rd)
    size = _worth(n, fed, log_rn)
    return np.asarray(np.logaddexp(np.logaddexp(e + 0 * n, a - alpha * size), b - beta * tokens))


def _evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
    return slopes(_value, theta, logs)


def _starts(logs: Array, log_y: Array) -> Array:
    n, d, u = logs

    def basis(at: tuple[float, ...]) -> Array:
        alpha, beta, log_rd, _ = at
        return np.exp([0 * n, -alpha * n, -beta * _worth(d, u, np.array(log_rd))])

    powers = np.geomspace(0.1, 1.0, 8).tolist()
    epochs = np.log([2.0, 6.0, 20.0]).tolist()
    return project(list(product(powers, powers, epochs, [np.log(5.0)])), basis, log_y)


def _natural(theta: Array, means: Array) -> Array:
    e, a, b, alpha, beta, log_rd, log_rn = theta.T
    with np.errstate(over="ignore"):
        return np.stack(
            [
                np.exp(e),
                np.exp(a + alpha * means[0]),
                np.exp(b + beta * means[1]),
                alpha,
                beta,
                np.exp(log_rd),
                np.exp(log_rn),
            ],
            axis=1,
        )


REPEATED = Form(
    name="repeated",
    formula="E + A / N'^alpha + B / D'^beta, N' and D' with less worth for repeated tokens",
    inputs=("N", "D", "U"),
    params=("E", "A", "B", "alpha", "beta", "R_D", "R_N"),
    evaluate=_evaluate,
    starts=_starts,
    natural=_natural,
    vanishing=("E",),
    falling=(("alpha", "N"), ("beta", "D")),
    alike=(("D", "U"),),
)
