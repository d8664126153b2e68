"""A law and the rows it is fitted to, in logarithms: what every fit and refit of it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, positive
from paramz.analysis.forms import Form
from paramz.analysis.robust import Fits, minimize


@dataclass(frozen=True, eq=False)
class Problem:
    """A law and the rows it is fitted to.

    Attributes:
        form: the law.
        columns: the column of each input.
        logs: logarithms of the inputs with their means taken off, shape (inputs, rows).
        means: what was taken off, shape (inputs,).
        log_y: logarithm of the response, shape (rows,).
        delta: where the Huber loss turns linear, in log response.
    """

    form: Form
    columns: Mapping[str, str]
    logs: Array
    means: Array
    log_y: Array
    delta: float

    def logs_of(self, df: pd.DataFrame) -> Array:
        """The inputs of other rows, as ``logs``."""
        return np.asarray(_raw_logs(df, self.columns) - self.means[:, None])

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
        response, and delta that of the problem.
        """
        return minimize(
            lambda theta: self.form.evaluate(theta, self.logs),
            start,
            self.log_y if target is None else target,
            delta=self.delta if delta is None else delta,
            weights=weights,
            tolerance=tolerance,
        )

    def residuals(self, theta: Array) -> Array:
        """Log response minus the law at these parameters, shape (rows,)."""
        value, _ = self.form.evaluate(theta[None], self.logs)
        return np.asarray(self.log_y - value[0])

    def natural(self, theta: Array) -> Array:
        """Parameters as people write them, shape (fits, p), from internal ones of that shape."""
        return self.form.natural(theta, self.means)


def make_problem(
    form: Form, columns: Mapping[str, str], df: pd.DataFrame, loss: str, delta: float
) -> Problem:
    """The problem of fitting a law to a table.

    Args:
        form: the law.
        columns: the column of each input.
        df: one row per run.
        loss: column of the response.
        delta: where the Huber loss turns linear, in log response.

    Returns:
        the problem.

    Raises:
        ValueError: delta is not above zero, there are too few rows or values of an input, or a
            column holds values that have no logarithm.
    """
    if delta <= 0:
        raise ValueError(f"delta must be above zero, got {delta}")
    log_y = np.log(positive(df, loss))
    raw = _raw_logs(df, columns)
    if len(df) < len(form.params):
        raise ValueError(
            f"{len(df)} rows cannot determine the {len(form.params)} parameters of "
            f"{form.name!r}: {', '.join(form.params)}"
        )
    for column, values in zip(columns.values(), raw, strict=True):
        if np.ptp(values) == 0:
            raise ValueError(
                f"column {column!r} has the one value {np.exp(values[0]):g} in the rows that "
                "are fitted, which cannot determine its exponent"
            )
    means = raw.mean(axis=1) if form.centered else np.zeros(len(raw))
    return Problem(form, columns, raw - means[:, None], means, log_y, delta)


def _raw_logs(df: pd.DataFrame, columns: Mapping[str, str]) -> Array:
    return np.stack([np.log(positive(df, column)) for column in columns.values()])
