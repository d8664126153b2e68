"""Functional forms of scaling laws, each with the starts that make its fit safe.

All are written for the logarithm of the response, over logarithms of the inputs with their mean
taken off: with raw inputs of 1e9 a coefficient and its exponent are so entangled that optimizers
stall. Most laws are sums of products of powers, so those are data: which power of which input
stands in which term.

Starts come from variable projection (Golub & Pereyra 1973; for scaling laws arXiv 2603.22339): on
a coarse grid of exponents the law is linear in its coefficients, which non-negative least squares
solves exactly. The best few grid points are what gets polished.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import nnls

from paramz.analysis.columns import Array

# Ranks, in the order of the projected objective, of the grid points that become starts.
RANKS = (0, 1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Form:
    """A law as the fit sees it; theta is internal, `natural` gives what people write down.

    Attributes:
        name: Its key in `FORMS`.
        formula: As people write it.
        inputs: Names of the inputs, in the order of the rows of `logs`.
        params: Names of the parameters, as `natural` gives them.
        evaluate: (theta (fits, p), logs (inputs, rows)) -> log response (fits, rows) and its
            Jacobian (fits, p, rows).
        starts: (logs, log response) -> starts (starts, p).
        natural: (theta, means taken off the logs) -> parameters (fits, p).
        vanishing: Parameters that lie on their bound when they are zero.
        centered: Whether logs come with their mean taken off.
    """

    name: str
    formula: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    evaluate: Callable[[Array, Array], tuple[Array, Array]]
    starts: Callable[[Array, Array], Array]
    natural: Callable[[Array, Array], Array]
    vanishing: tuple[str, ...] = ()
    centered: bool = True


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
        name: Its name.
        formula: As people write it.
        inputs: Names of the inputs.
        terms: For each coefficient, the exponent's name for each input in its term; one name in
            several places ties the exponents.
        sign: -1 when the formula divides by the powers, +1 when it multiplies.
        grid: Exponents that starts are made from.

    Returns:
        The form.

    >>> law = sum_of_powers("x", "E + A / N^a", ("N",), {"E": {}, "A": {"N": "a"}})
    >>> law.params
    ('E', 'A', 'a')
    """
    exponents = tuple(dict.fromkeys(e for powers in terms.values() for e in powers.values()))
    params = (*terms, *exponents)
    column = {p: i for i, p in enumerate(params)}
    # (term, parameter, input): the term is the coefficient plus sign * exponent * log input.
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

        return _project(list(product(values, repeat=len(exponents))), basis, log_y)

    def natural(theta: Array, means: Array) -> Array:
        out = theta.copy()
        for t, p, x in places:
            out[:, t] -= sign * theta[:, p] * means[x]
        with np.errstate(over="ignore"):  # a resample may leave a coefficient undetermined
            out[:, : len(terms)] = np.exp(out[:, : len(terms)])
        return out

    offset = tuple(c for c, powers in terms.items() if not powers)
    return Form(name, formula, inputs, params, evaluate, starts, natural, offset)


def _project(
    grid: list[tuple[float, ...]], basis: Callable[[tuple[float, ...]], Array], log_y: Array
) -> Array:
    """Starts (log coefficients, grid values) from non-negative least squares at grid points.

    Residuals are relative, so that they are those of the logarithm to first order.
    """
    found = []
    ones = np.ones(len(log_y))
    for at in grid:
        columns = basis(at)
        coefficients, distance = nnls((columns * np.exp(-log_y)).T, ones)
        found.append((distance, coefficients, at))
    found.sort(key=lambda f: f[0])
    chosen = [found[r] for r in RANKS if r < len(found)]
    # A coefficient of zero cannot be polished as a logarithm; a small share can.
    floor = 1e-3 * np.exp(log_y.min())
    return np.array([[*np.log(np.maximum(c, floor)), *at] for _, c, at in chosen])


def _kaplan_evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
    k, u, d, log_a = (theta[:, i, None] for i in range(4))
    a = np.exp(log_a)
    first, second = k - u * logs[0], d - logs[1]
    top = np.maximum(first, second)
    e1, e2 = np.exp(first - top), np.exp(second - top)
    inner = top + np.log(e1 + e2)
    s1, s2 = e1 / (e1 + e2), e2 / (e1 + e2)
    return a * inner, np.stack([a * s1, -a * s1 * logs[0], a * s2, a * inner], axis=1)


def _kaplan_starts(logs: Array, log_y: Array) -> Array:
    found = []
    for alpha_n, alpha_d in product(np.geomspace(0.02, 1.0, 16), repeat=2):
        u, scaled = alpha_n / alpha_d, log_y / alpha_d
        columns = np.stack([np.exp(-u * logs[0] - scaled), np.exp(-logs[1] - scaled)])
        c, _ = nnls(columns.T, np.ones(len(log_y)))
        # The transform to a linear problem stretches residuals by 1 / alpha_d.
        distance = float(np.linalg.norm(alpha_d * np.log(np.maximum(c @ columns, 1e-12))))
        found.append((distance, [*np.log(np.maximum(c, 1e-6)), u, alpha_d]))
    found.sort(key=lambda f: f[0])
    chosen = [found[r][1] for r in RANKS]
    return np.array([[k, u, d, np.log(a)] for k, d, u, a in chosen])


def _kaplan_natural(theta: Array, means: Array) -> Array:
    k, u, d, log_a = theta.T
    a = np.exp(log_a)
    return np.stack([np.exp(k / u + means[0]), np.exp(d + means[1]), u * a, a], axis=1)


# Range of the sharpness f of a break: sharper than a few percent in x no data could tell, and
# softer than a factor e^2 is no break.
_F = (0.03, 2.0)


def _sharpness(s: Array) -> Array:
    """Sharpness from its free coordinate: between the ends of `_F`, evenly in its logarithm."""
    share = 1.0 / (1.0 + np.exp(-np.clip(s, -500, 500)))
    return np.asarray(np.exp(np.log(_F[0]) + share * np.log(_F[1] / _F[0])))


def _broken_evaluate(theta: Array, logs: Array) -> tuple[Array, Array]:
    e, b, c0, c1, knee, s = (theta[:, i, None] for i in range(6))
    x, f = logs[0], _sharpness(s)
    z = (x - knee) / f
    softplus = np.logaddexp(0.0, z)
    above = 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500)))
    power = b - c0 * x - c1 * f * softplus
    value = np.logaddexp(e, power)
    share = np.exp(power - value)
    turn = f * np.log(_F[1] / f) * np.log(f / _F[0]) / np.log(_F[1] / _F[0])
    slopes = [1.0, -x, -f * softplus, c1 * above, -c1 * turn * (softplus - above * z)]
    return value, np.stack([np.exp(e - value), *(share * s for s in slopes)], axis=1)


def _broken_starts(logs: Array, log_y: Array) -> Array:
    x = logs[0]

    def basis(at: tuple[float, ...]) -> Array:
        c0, c1, knee, s = at
        f = _sharpness(np.array(s))
        return np.exp([0 * x, -c0 * x - c1 * f * np.logaddexp(0.0, (x - knee) / f)])

    slopes = np.geomspace(0.03, 1.0, 6)
    knees = np.quantile(x, np.linspace(0.1, 0.9, 7))
    changes = [-0.5, -0.2, 0.1, 0.3, 0.6]
    grid = list(product(slopes, changes, knees, [-1.0, 1.0]))
    return _project([(float(a), float(b), float(c), float(d)) for a, b, c, d in grid], basis, log_y)


def _broken_natural(theta: Array, means: Array) -> Array:
    e, b, c0, c1, knee, s = theta.T
    return np.stack(
        [np.exp(e), np.exp(b + c0 * means[0]), c0, c1, np.exp(knee + means[0]), _sharpness(s)],
        axis=1,
    )


def custom(
    function: Callable[..., Array], inputs: tuple[str, ...], start: Mapping[str, float]
) -> Form:
    """A law given as a function of inputs and parameters, all by keyword.

    Args:
        function: For instance `lambda N, E, A, a: E + A * N**-a`; it must return positive values
            and accept arrays that broadcast.
        inputs: Which of its arguments are columns of the data.
        start: A value to start from for each parameter. Positive ones are fitted as logarithms
            and stay positive; others are free.

    Returns:
        The form. Its derivatives are differences and there is one start, so it is slower and less
        safe than those of `FORMS`.

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
    return Form(
        getattr(function, "__name__", "custom"),
        f"{getattr(function, '__name__', 'custom')}({', '.join((*inputs, *names))})",
        inputs,
        names,
        evaluate,
        lambda logs, log_y: first[None],
        lambda theta, means: values(theta),
        centered=False,
    )


# Kaplan et al., arXiv 2001.08361, eq. 1.5; Hoffmann et al., arXiv 2203.15556, eq. 2; Gadre et al.,
# arXiv 2403.08540 (tied exponents); Caballero et al., arXiv 2210.14891, eq. 1 with one break.
FORMS = {
    form.name: form
    for form in (
        sum_of_powers("power", "E + A / {x}^alpha", ("x",), {"E": {}, "A": {"x": "alpha"}}),
        sum_of_powers("pure_power", "A / {x}^alpha", ("x",), {"A": {"x": "alpha"}}),
        sum_of_powers(
            "chinchilla",
            "E + A / N^alpha + B / D^beta",
            ("N", "D"),
            {"E": {}, "A": {"N": "alpha"}, "B": {"D": "beta"}},
        ),
        sum_of_powers(
            "tied",
            "E + A / N^alpha + B / D^alpha",
            ("N", "D"),
            {"E": {}, "A": {"N": "alpha"}, "B": {"D": "alpha"}},
        ),
        Form(
            "kaplan",
            "((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D",
            ("N", "D"),
            ("Nc", "Dc", "alpha_N", "alpha_D"),
            _kaplan_evaluate,
            _kaplan_starts,
            _kaplan_natural,
        ),
        Form(
            "broken",
            "E + b {x}^-c0 (1 + ({x} / d)^(1 / f))^(-c1 f)",
            ("x",),
            ("E", "b", "c0", "c1", "d", "f"),
            _broken_evaluate,
            _broken_starts,
            _broken_natural,
            ("E",),
        ),
        sum_of_powers(
            "hp",
            "c N^p D^q",
            ("N", "D"),
            {"c": {"N": "p", "D": "q"}},
            sign=1,
            grid=np.linspace(-1.5, 1.5, 25),
        ),
    )
}
