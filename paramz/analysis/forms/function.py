"""A law given as a Python function of inputs and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form


def custom(
    function: Callable[..., Array], inputs: tuple[str, ...], start: Mapping[str, float]
) -> Form:
    """A law given as a function of inputs and parameters, all by keyword.

    Its derivatives are finite differences and there is one start, so it is slower and less safe
    than those of `FORMS`.

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
        out = np.broadcast_to(function(**args, **given), (len(theta), logs.shape[1]))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(out)

    def evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
        h = 1e-5
        slopes = [
            (predict(theta + h * unit, logs) - predict(theta - h * unit, logs)) / (2 * h)
            for unit in np.eye(len(names))
        ]
        return predict(theta, logs), np.stack(slopes, axis=1)

    first = np.array([np.log(start[n]) if start[n] > 0 else start[n] for n in names])
    name = getattr(function, "__name__", "custom")
    return Form(
        name,
        f"{name}({', '.join((*inputs, *names))})",
        inputs,
        names,
        evaluate,
        lambda logs, log_y: first[None],
        lambda theta, means: values(theta),
        centered=False,
    )
