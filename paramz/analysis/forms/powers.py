"""Laws that are sums of coefficients times products of powers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms.form import Form
from paramz.analysis.forms.starts import project

# Coefficient -> input -> name of the exponent.
Terms = Mapping[str, Mapping[str, str]]


def sum_of_powers(
    name: str,
    formula: str,
    inputs: tuple[str, ...],
    terms: Terms,
    *,
    sign: int = -1,
    grid: Array | None = None,
) -> Form:
    """A law that adds coefficients times products of powers of the inputs.

    Args:
        name: its name.
        formula: the law as people write it; ``{x}`` stands for the name of a single input.
        inputs: names of the inputs.
        terms: for each coefficient, the exponent's name for each input in its term; one name in
            several places ties the exponents.
        sign: -1 when the formula divides by the powers, +1 when it multiplies.
        grid: exponents that starts are made from.

    Returns:
        the form, for `ScalingLaw`.

    >>> law = sum_of_powers("x", "E + A / N^a", ("N",), {"E": {}, "A": {"N": "a"}})
    >>> law.params
    ('E', 'A', 'a')
    """
    exponents = tuple(dict.fromkeys(e for powers in terms.values() for e in powers.values()))
    params = (*terms, *exponents)
    column = {p: i for i, p in enumerate(params)}
    # Triples (term, parameter, input): the logarithm of the term is that of its coefficient plus
    # sign * exponent * log input, over the triples of the term.
    places = [
        (t, column[exponent], inputs.index(x))
        for t, powers in enumerate(terms.values())
        for x, exponent in powers.items()
    ]
    values = np.geomspace(0.02, 2.0, 24) if grid is None else grid

    def evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
        parts = np.repeat(theta[:, : len(terms), None], logs.shape[1], axis=2)
        for t, p, x in places:
            parts[:, t] += sign * theta[:, p, None] * logs[x]
        top = parts.max(axis=1)
        share = np.exp(parts - top[:, None])
        total = share.sum(axis=1)
        share /= total[:, None]
        jacobian = np.zeros((len(theta), len(params), logs.shape[1]))
        jacobian[:, : len(terms)] = share
        for t, p, x in places:
            jacobian[:, p] += sign * share[:, t] * logs[x]
        return top + np.log(total), jacobian

    def starts(logs: Array, log_y: Array) -> Array:
        def basis(at: tuple[float, ...]) -> Array:
            columns = np.zeros((len(terms), logs.shape[1]))
            for t, p, x in places:
                columns[t] += sign * at[p - len(terms)] * logs[x]
            return np.exp(columns)

        return project(list(product(values, repeat=len(exponents))), basis, log_y)

    def natural(theta: Array, means: Array) -> Array:
        out = theta.copy()
        for t, p, x in places:
            out[:, t] -= sign * theta[:, p] * means[x]
        with np.errstate(over="ignore"):  # a resample may leave a coefficient undetermined
            out[:, : len(terms)] = np.exp(out[:, : len(terms)])
        return out

    offset = tuple(c for c, powers in terms.items() if not powers)
    return Form(name, formula, inputs, params, evaluate, starts, natural, offset)
