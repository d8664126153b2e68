"""The smoothly broken power law of Caballero et al., arXiv 2210.14891, eq. 1 with one break.

The internal parameters are log E, log b - c0 mean log x, c0, c1, log d - mean log x, and a
coordinate of the sharpness f that is free while f stays within `_SHARPNESS`.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.starts import project

# Range of f. A break sharper than a few percent in x looks the same in any data, and one that is
# softer than a factor e^2 is no break.
_SHARPNESS = (0.03, 2.0)


def _sharpness(s: Array) -> Array:
    """Sharpness from its free coordinate: between the ends of its range, evenly in its logarithm.

    >>> _sharpness(np.array([-100.0, 100.0])).round(6).tolist() == list(_SHARPNESS)
    True
    """
    low, high = _SHARPNESS
    share = 1.0 / (1.0 + np.exp(-np.clip(s, -500, 500)))
    return np.asarray(np.exp(np.log(low) + share * np.log(high / low)))


def _evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
    e, b, c0, c1, knee, s = (theta[:, i, None] for i in range(6))
    x, f = logs[0], _sharpness(s)
    low, high = _SHARPNESS
    z = (x - knee) / f
    softplus = np.logaddexp(0.0, z)
    above = 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500)))
    power = b - c0 * x - c1 * f * softplus
    value = np.logaddexp(e, power)
    share = np.exp(power - value)
    turn = f * np.log(high / f) * np.log(f / low) / np.log(high / low)
    slopes = [1.0, -x, -f * softplus, c1 * above, -c1 * turn * (softplus - above * z)]
    return value, np.stack([np.exp(e - value), *(share * s for s in slopes)], axis=1)


def _starts(logs: Array, log_y: Array) -> Array:
    x = logs[0]

    def basis(at: tuple[float, ...]) -> Array:
        c0, c1, knee, s = at
        f = _sharpness(np.array(s))
        return np.exp([0 * x, -c0 * x - c1 * f * np.logaddexp(0.0, (x - knee) / f)])

    slopes = np.geomspace(0.03, 1.0, 6)
    knees = np.quantile(x, np.linspace(0.1, 0.9, 7))
    changes = [-0.5, -0.2, 0.1, 0.3, 0.6]
    grid = list(product(slopes, changes, knees, [-1.0, 1.0]))
    return project([(float(a), float(b), float(c), float(d)) for a, b, c, d in grid], basis, log_y)


def _natural(theta: Array, means: Array) -> Array:
    e, b, c0, c1, knee, s = theta.T
    return np.stack(
        [np.exp(e), np.exp(b + c0 * means[0]), c0, c1, np.exp(knee + means[0]), _sharpness(s)],
        axis=1,
    )


BROKEN = Form(
    name="broken",
    formula="E + b {x}^-c0 (1 + ({x} / d)^(1 / f))^(-c1 f)",
    inputs=("x",),
    params=("E", "b", "c0", "c1", "d", "f"),
    evaluate=_evaluate,
    starts=_starts,
    natural=_natural,
    vanishing=("E",),
    falling=(("c0", "x"),),
)
