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

# Starts cost a least-squares problem for each point of a grid with an axis per exponent: about a
# tenth of a second for this many.
_MOST_POINTS = 1300
# A grid of the user's own may be this much larger.
_MOST_GIVEN = 20_000


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
        grid: exponents that starts are made from; by default 24 values from 0.02 to 2, and fewer
            where there are more than two exponents: 10 for three, 6 for four.

    Returns:
        the form, for `ScalingLaw`.

    Raises:
        ValueError: there are no exponents, or the given grid has too many points.

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
    values = _grid_of(name, len(exponents), grid)

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
    of = {e: x for powers in terms.values() for x, e in powers.items()}
    falling = tuple(of.items()) if sign < 0 else ()
    return Form(name, formula, inputs, params, evaluate, starts, natural, offset, falling=falling)


def _grid_of(name: str, exponents: int, grid: Array | None) -> Array:
    """The values of each exponent that starts are made from."""
    if not exponents:
        raise ValueError(f"the law {name!r} has no exponent: no input stands in its terms")
    if grid is None:
        return np.geomspace(0.02, 2.0, max(2, min(24, int(_MOST_POINTS ** (1 / exponents)))))
    if len(grid) ** exponents > _MOST_GIVEN:
        raise ValueError(
            f"the law {name!r} has {exponents} exponents, so a grid of {len(grid)} values makes "
            f"{len(grid)}^{exponents} = {len(grid) ** exponents:,} starts; give at most "
            f"{int(_MOST_GIVEN ** (1 / exponents))} values, or leave grid out"
        )
    return grid
