"""A law given as a Python function of inputs and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.starts import best_ranked

# How many random starts are looked at, and how far from the given one they lie, in logarithms of
# positive parameters: a coefficient of 1 is given where 1e6 is right, an exponent is not.
_TRIED = 4000
_SPREAD = (1.0, 4.0)


def slopes(
    predict: Callable[[Array, Array], Array], theta: Array, logs: Array
) -> tuple[Array, Array]:
    """Values of a law and its Jacobian by central differences.

    Args:
        predict: (theta (fits, p), logs (inputs, rows)) -> log response (fits, rows).
        theta: shape (fits, p).
        logs: shape (inputs, rows).

    Returns:
        log response (fits, rows), Jacobian (fits, p, rows).
    """
    h = 1e-5
    found = [
        (predict(theta + h * unit, logs) - predict(theta - h * unit, logs)) / (2 * h)
        for unit in np.eye(theta.shape[1])
    ]
    return predict(theta, logs), np.stack(found, axis=1)


def custom(
    function: Callable[..., Array], inputs: tuple[str, ...], start: Mapping[str, float]
) -> Form:
    """A law given as a function of inputs and parameters, all by keyword.

    Its derivatives are finite differences, so it is slower than those of `FORMS`. The fit starts at
    the given values and at the best of some thousands around them, and warns where the rows leave a
    parameter open.

    Args:
        function: for instance ``lambda N, E, A, a: E + A * N**-a``; it must return positive values
            and accept arrays that broadcast.
        inputs: which of its arguments are columns of the data.
        start: a value to start from for each parameter. Positive ones are fitted as logarithms
            and stay positive; others are free.

    Returns:
        the form, for `ScalingLaw`.

    >>> custom(lambda N, E, A: E + A / N, ("N",), {"E": 1.0, "A": 1.0}).params
    ('E', 'A')
    """
    names = tuple(start)
    log = np.array([start[n] > 0 for n in names])

    def values(theta: Array) -> Array:
        return np.where(log, np.exp(np.where(log, theta, 0.0)), theta)

    def predict(theta: Array, logs: Array) -> Array:
        args = dict(zip(inputs, np.exp(logs)[:, None], strict=True))
        given = dict(zip(names, values(theta).T[..., None], strict=True))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            out = np.broadcast_to(function(**args, **given), (len(theta), logs.shape[1]))
            return np.log(out)

    def evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
        return slopes(predict, theta, logs)

    first = np.array([np.log(start[n]) if start[n] > 0 else start[n] for n in names])

    def starts(logs: Array, log_y: Array) -> Array:
        rng = np.random.default_rng(0)
        far = rng.choice(_SPREAD, (_TRIED, 1)) * rng.standard_normal((_TRIED, len(first)))
        tried = np.concatenate(
            [first[None], first + far * np.where(log, 1.0, np.maximum(1, abs(first)))]
        )
        found = []
        for part in np.array_split(tried, max(1, len(log_y) * _TRIED // 200_000)):
            off = np.abs(predict(part, logs) - log_y).mean(axis=1)
            found += [
                (float(o) if np.isfinite(o) else np.inf, t) for o, t in zip(off, part, strict=True)
            ]
        return np.concatenate([first[None], best_ranked(found)])

    name = getattr(function, "__name__", "custom")
    return Form(
        name,
        f"{name}({', '.join((*inputs, *names))})",
        inputs,
        names,
        evaluate,
        starts,
        lambda theta, means: values(theta),
        centered=False,
    )
