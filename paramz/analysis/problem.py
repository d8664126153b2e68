"""A law and the rows it is fitted to, in logarithms: what every fit and refit of it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, Mask, positive
from paramz.analysis.constraints import Affine, solve
from paramz.analysis.forms import Form
from paramz.analysis.robust import Fits, minimize

# Smaller residuals are rounding.
_LEAST_DELTA = 1e-12


@dataclass(frozen=True, eq=False)
class Problem:
    """A law and the rows it is fitted to.

    Attributes:
        form: the law.
        columns: the column of each input.
        logs: logarithms of the inputs with their means taken off, shape (inputs, rows).
        means: what was taken off, shape (inputs,).
        target: the response, or its logarithm where ``in_log``, shape (rows,).
        delta: where the Huber loss turns linear, in the units of the target.
        in_log: whether residuals are those of the logarithm.
        weights: of the rows, with mean one, shape (rows,); None where all count the same.
        held: which internal parameters are left free; None for all.
    """

    form: Form
    columns: Mapping[str, str]
    logs: Array
    means: Array
    target: Array
    delta: float
    in_log: bool = True
    weights: Array | None = None
    held: Affine | None = None

    @property
    def free(self) -> int:
        """The number of parameters that are fitted."""
        return len(self.form.params) if self.held is None else len(self.held.basis)

    def rows(self, keep: Mask) -> Problem:
        """The same law and fewer rows."""
        return replace(
            self,
            logs=self.logs[:, keep],
            target=self.target[keep],
            weights=None if self.weights is None else self.weights[keep],
        )

    def logs_of(self, df: pd.DataFrame) -> Array:
        """The inputs of other rows, as ``logs``."""
        return np.asarray(_raw_logs(df, self.columns) - self.means[:, None])

    def values(self, theta: Array, logs: Array) -> Array:
        """The law in the units of the target, (fits, rows), at internal parameters (fits, p)."""
        value, _ = self.form.evaluate(theta, logs)
        value = np.clip(value, -700, 700)
        return value if self.in_log else np.exp(value)

    def response(self, values: Array) -> Array:
        """Values in the units of the target as those of the response."""
        return np.exp(np.clip(values, -700, 700)) if self.in_log else values

    def starts(self) -> Array:
        """Internal parameters to start from, shape (starts, p)."""
        log_y = self.target if self.in_log else np.log(self.target)
        return self.form.starts(self.logs, log_y)

    def minimize(
        self,
        start: Array,
        *,
        target: Array | None = None,
        delta: float | None = None,
        weights: Array | None = None,
        tolerance: float = 1e-12,
    ) -> Fits:
        """Fit the law from several starts, or to several targets or weights of the rows.

        The arguments are those of `paramz.analysis.robust.minimize`; the target is by default the
        response, delta that of the problem, and weights come on top of those of the rows.
        """
        if self.weights is not None:
            weights = self.weights[None] * (1.0 if weights is None else weights)
        if weights is not None:
            weights = np.broadcast_to(weights, (len(start), self.logs.shape[1]))
        held = self.held
        found = minimize(
            self._evaluate,
            start if held is None else held.free(start),
            self.target if target is None else target,
            delta=self.delta if delta is None else delta,
            weights=weights,
            tolerance=tolerance,
        )
        return found if held is None else replace(found, theta=held.full(found.theta))

    def _evaluate(self, z: Array) -> tuple[Array, Array]:
        value, slope = self.form.evaluate(z if self.held is None else self.held.full(z), self.logs)
        if not self.in_log:
            value = np.exp(np.minimum(value, 700))
            slope = slope * value[:, None]
        if self.held is not None:
            slope = self.held.basis @ slope
        return value, slope

    def jacobian(self, theta: Array) -> Array:
        """Slopes of the logarithm of the law in its internal parameters (p,), shape (p, rows)."""
        return np.asarray(self.form.evaluate(theta[None], self.logs)[1][0])

    def residuals(self, theta: Array) -> Array:
        """Target minus the law at these parameters, shape (rows,)."""
        return np.asarray(self.target - self.values(theta[None], self.logs)[0])

    def natural(self, theta: Array) -> Array:
        """Parameters as people write them, shape (fits, p), from internal ones of that shape."""
        return self.form.natural(theta, self.means)


@dataclass(frozen=True)
class Choices:
    """How a law is fitted.

    Attributes:
        delta: where the Huber loss turns linear, in the units of the residuals; None for the one
            that suits the response.
        residuals: ``"log"`` for those of the logarithm, ``"loss"`` for those of the response
            itself.
        weights: column of the weights of the rows.
        fixed: values of parameters that are known.
        shared: for a parameter, the other that it equals.
    """

    delta: float | None = None
    residuals: str = "log"
    weights: str | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)


def make_problem(
    form: Form, columns: Mapping[str, str], df: pd.DataFrame, loss: str, choices: Choices
) -> Problem:
    """The problem of fitting a law to a table.

    Args:
        form: the law.
        columns: the column of each input.
        df: one row per run.
        loss: column of the response.
        choices: how it is fitted.

    Returns:
        the problem.

    Raises:
        ValueError: delta is not above zero, there is no such kind of residuals, there are too few
            rows or values of an input, a parameter cannot be held, or a column holds values that
            cannot be used.
    """
    if choices.residuals not in ("log", "loss"):
        raise ValueError(f"no residuals {choices.residuals!r}: choose 'log' or 'loss'")
    y = positive(df, loss)
    in_log = choices.residuals == "log"
    delta = choices.delta
    if delta is None:
        delta = (1.0 if on_grid(y) else form.delta) * (1.0 if in_log else float(np.median(y)))
    if not delta > 0:
        raise ValueError(f"delta must be above zero, got {delta}")
    if delta < _LEAST_DELTA:
        raise ValueError(
            f"delta must be {_LEAST_DELTA:g} or more, got {delta:g}: smaller residuals are rounding"
        )
    raw = _raw_logs(df, columns)
    means = _means(form, raw)
    held = solve(form, means, choices.fixed, choices.shared)
    free = len(form.params) if held is None else len(held.basis)
    if len(df) < free:
        raise ValueError(
            f"{len(df)} rows cannot determine the {free} parameters of {form.name!r}"
            f"{': ' + ', '.join(form.params) if held is None else ' that are left free'}; it needs "
            f"{free} rows, better {free + 3}"
        )
    for column, values in zip(columns.values(), raw, strict=True):
        if np.ptp(values) == 0:
            raise ValueError(
                f"column {column!r} has the one value {np.exp(values[0]):g} in the rows that "
                "are fitted, which cannot determine its exponent"
            )
    weights = None
    if choices.weights:
        weights = positive(df, choices.weights)
        weights = weights / weights.mean()
    return Problem(
        form,
        columns,
        raw - means[:, None],
        means,
        np.log(y) if in_log else y,
        delta,
        in_log,
        weights,
        held,
    )


def log_residuals(problem: Problem, theta: Array, rows: pd.DataFrame) -> pd.Series:
    """Log response minus that of the law at internal parameters (p,), for the rows of a table."""
    value, _ = problem.form.evaluate(theta[None], problem.logs)
    log_y = problem.target if problem.in_log else np.log(problem.target)
    return pd.Series(log_y - value[0], index=rows.index, name="residual")


def on_grid(values: Array) -> bool:
    """Whether positive values sit on a grid of at least a quarter octave, as tuned ones do.

    >>> on_grid(2.0 ** np.array([-8, -7.5, -7.5, -6])), on_grid(np.array([3.1, 2.9, 2.8, 2.75]))
    (True, False)
    """
    at = np.unique(np.log2(values).round(6))
    if len(at) < 3 or len(at) == len(values):
        return False
    gaps = np.diff(at)
    step = gaps.min()
    return bool(step >= 0.24 and np.allclose(gaps / step, np.round(gaps / step), atol=0.02))


def _means(form: Form, raw: Array) -> Array:
    """What is taken off the logarithms of the inputs."""
    if not form.centered:
        return np.zeros(len(raw))
    means = raw.mean(axis=1)
    for group in form.alike:
        members = [form.inputs.index(name) for name in group]
        means[members] = means[members].mean()
    return np.asarray(means)


def _raw_logs(df: pd.DataFrame, columns: Mapping[str, str]) -> Array:
    return np.stack([np.log(positive(df, column)) for column in columns.values()])
