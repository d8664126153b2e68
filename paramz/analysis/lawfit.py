"""A fitted law: its parameters, how sure they are, and what it predicts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from paramz.analysis.allocation import allocate, check_divisible, far_from_rows
from paramz.analysis.columns import Array
from paramz.analysis.extrapolation import Extrapolation, distance, far, measure
from paramz.analysis.forms import Form
from paramz.analysis.lawwords import (
    as_table,
    held_out_in_words,
    params_in_words,
    saved_bounds,
    saved_rows,
)
from paramz.analysis.problem import Choices, Problem
from paramz.analysis.refits import Draws, bootstrap, sensitivity


class LawWarning(UserWarning):
    """A fit or prediction that deserves a second look."""


@dataclass(frozen=True, eq=False)
class LawFit:
    """What `ScalingLaw.fit` returns. It does not change.

    Attributes:
        form: the law.
        columns: the column of each input.
        loss: column of the response.
        params: the parameters.
        objective: weighted sum of Huber losses of the residuals (not the mean).
        delta: where the Huber loss turns linear: in log response (about: relative error), or in
            that of the response where ``choices.residuals`` is ``"loss"``.
        nobs: number of rows that were fitted.
        converged: whether the optimizer ended at a minimum.
        n_at_best: how many of the starts reached the best objective.
        n_starts: how many starts there were.
        residuals: log response minus its fit, per row of the data.
        warnings: the texts of the warnings that the fit gave.
        data: the rows that were fitted.
        held_out: the rows that were not.
        choices: how it was fitted.
    """

    form: Form
    columns: Mapping[str, str]
    loss: str
    params: pd.Series
    objective: float
    delta: float
    nobs: int
    converged: bool
    n_at_best: int
    n_starts: int
    residuals: pd.Series
    warnings: tuple[str, ...]
    data: pd.DataFrame
    held_out: pd.DataFrame
    choices: Choices
    _problem: Problem
    _theta: Array
    _groups: Array | None

    def __repr__(self) -> str:
        values = ", ".join(f"{name} = {value:.4g}" for name, value in self.params.items())
        law = f"{self.loss} = {self.formula}"
        return f"<LawFit {law}, {self.nobs} rows: {values}; print(fit.summary())>"

    # -- uncertainty -------------------------------------------------------------------------

    def bootstrap(self, draws: int = 1000, *, kind: str | None = None, seed: int = 0) -> Draws:
        """Refit on resamples, all at once, from the optimum.

        The coverage of the intervals is measured for every form in ``benchmarks/coverage.py``.

        Args:
            draws: number of resamples.
            kind: ``"pairs"`` or ``"parametric"``; by default pairs from 30 rows on, and wherever
                rows share a group.
            seed: seed of the resampling.

        Returns:
            the draws.

        Raises:
            ValueError: there is no such kind, or none for rows that share a group, or no more rows
                than parameters.
        """
        return bootstrap(
            self._problem, self._theta, self._groups, draws=draws, kind=kind, seed=seed
        )

    @cached_property
    def draws(self) -> Draws:
        """The bootstrap that intervals are made from unless another is given."""
        return self.bootstrap()

    def conf_int(self, level: float = 0.95, *, draws: Draws | None = None) -> pd.DataFrame:
        """Percentile intervals of the parameters.

        Args:
            level: their coverage.
            draws: a bootstrap; by default ``self.draws``.

        Returns:
            columns ``lo`` and ``hi``, a row per parameter.
        """
        tail = (1 - level) / 2
        with np.errstate(invalid="ignore"):  # infinite where a resample determines nothing
            found = (draws or self.draws).params.quantile([tail, 1 - tail]).T
        found.columns = pd.Index(["lo", "hi"])
        return found

    def unclear(self) -> list[str]:
        """The parameters whose 95% interval holds zero, so that their sign is unknown."""
        if not self._has_intervals:
            return []
        bounds = self.conf_int()
        return [str(p) for p in bounds.index[(bounds["lo"] <= 0) & (bounds["hi"] >= 0)]]

    @property
    def _has_intervals(self) -> bool:
        return self.nobs > self._problem.free

    @cached_property
    def extrapolation(self) -> Extrapolation:
        """By what predictive intervals are widened beyond the rows: errors of held-out rows."""
        return measure(self._problem, self._theta, self._groups)

    # -- prediction --------------------------------------------------------------------------

    def predict(
        self,
        data: pd.DataFrame | Mapping[str, Sequence[float] | float],
        *,
        interval: str = "predictive",
        level: float = 0.95,
        draws: Draws | None = None,
    ) -> pd.DataFrame:
        """The response at new inputs.

        Beyond the rows that were fitted, predictive intervals are widened by what the errors of
        held-out rows show (`extrapolation`).

        Args:
            data: the columns of the inputs, named as in the fit.
            interval: ``"predictive"`` for where a new run will fall, ``"confidence"`` for the
                parameters' uncertainty alone, as if the law were true, ``"none"`` for the mean
                alone, which takes no bootstrap.
            level: coverage.
            draws: a bootstrap; by default ``self.draws``.

        Returns:
            ``mean``, ``lo``, ``hi``, a row per row of the data.

        Raises:
            ValueError: there is no such kind of interval, or no more rows than parameters.
        """
        if interval not in ("predictive", "confidence", "none"):
            raise ValueError(
                f"no interval {interval!r}: choose 'predictive' or 'confidence', or 'none'"
            )
        frame = as_table(data)
        problem = self._problem
        logs = problem.logs_of(frame)
        for text in far(problem, logs):
            warnings.warn(text, LawWarning, stacklevel=2)
        center = problem.values(self._theta[None], logs)[0]
        if interval == "none":
            return pd.DataFrame({"mean": problem.response(center)}, index=frame.index)
        sample = draws or self.draws
        values = problem.values(sample.theta, logs)
        if interval == "predictive":
            away = distance(problem.logs, logs)
            factor = self.extrapolation.factor(away) if (away > 0).any() else np.ones_like(away)
            values = center + factor * (values + sample.noise[:, None] - center)
        tail = (1 - level) / 2
        lo, hi = np.quantile(values, [tail, 1 - tail], axis=0)
        found = {"mean": center, "lo": lo, "hi": hi}
        return pd.DataFrame({k: problem.response(v) for k, v in found.items()}, index=frame.index)

    @cached_property
    def holdout_error(self) -> pd.DataFrame:
        """The held-out rows: ``actual, mean, lo, hi``, relative ``error``, ``inside`` the interval.

        A row per row that was held out. With no more rows than parameters there is no interval:
        its ends are NaN, and ``inside`` is False.
        """
        if self.held_out.empty:
            return pd.DataFrame(columns=["actual", "mean", "lo", "hi", "error", "inside"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LawWarning)
            kind = "predictive" if self._has_intervals else "none"
            found = self.predict(self.held_out, interval=kind).reindex(columns=["mean", "lo", "hi"])
        actual = self.held_out[self.loss].astype(float)
        inside = (found["lo"] <= actual) & (actual <= found["hi"])
        error = found["mean"] / actual - 1
        return found.assign(actual=actual, error=error, inside=inside)[
            ["actual", "mean", "lo", "hi", "error", "inside"]
        ]

    def optimal_allocation(
        self, flops: float | Sequence[float], *, per: float = 6.0, level: float | None = 0.95
    ) -> pd.DataFrame:
        """The parameters N and tokens D that minimize the loss for a compute C = per * N * D.

        Args:
            flops: one or more computes.
            per: FLOP per parameter and token, in the units of N and D.
            level: coverage of the intervals; None for none, which takes no bootstrap.

        Returns:
            ``C, N, N_lo, N_hi, D, D_lo, D_hi`` and ``exponent, exponent_lo, exponent_hi``, the
            slope of log N over log C.

        Warns:
            LawWarning: a compute lies far from those of the rows, as where N or D is counted in
                millions.

        Raises:
            ValueError: the inputs of the law are not N and D, it is no law of a loss, or the rows
                do not determine how to divide compute.
        """
        check_divisible(self._problem)
        for text in far_from_rows(self._problem, flops, per):
            warnings.warn(text, LawWarning, stacklevel=2)
        theta = self._theta[None]
        if level is not None:
            theta = np.concatenate([theta, self.draws.theta])
        return allocate(self._problem, theta, flops, per, level or 0.0)

    def sensitivity(
        self,
        *,
        delta: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
        drop: Sequence[int] = (1, 3, 5),
    ) -> pd.DataFrame:
        """The parameters under other choices: of delta, and without the highest losses.

        Args:
            delta: values of the Huber delta.
            drop: how many of the highest losses to leave out; too high numbers are ignored.

        Returns:
            a row per choice: its name, the rows that were fitted, the parameters.
        """
        return sensitivity(self._problem, self._theta, delta, drop)

    # -- words -------------------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The law with the name of its input."""
        return self.form.formula.replace("{x}", next(iter(self.columns)))

    def summary(self) -> str:
        """The fit as text."""
        inside = int((np.abs(self._problem.residuals(self._theta)) <= self.delta).sum())
        lines = [
            f"{self.loss} = {self.formula}",
            f"{self.nobs} rows, Huber delta {self.delta:g} ({inside} residuals inside), "
            f"objective {self.objective:.6g}, {self.n_at_best} of {self.n_starts} starts at it",
            f"scatter about the law: {self.residuals.std(ddof=0):.2%}",
        ]
        known = {**self.choices.fixed, **self.choices.shared}
        lines += [f"{name} = {value} was given" for name, value in known.items()]
        lines.append(params_in_words(self.params, self.conf_int() if self._has_intervals else None))
        if self._has_intervals:
            lines.append(f"intervals: {len(self.draws.params)} {self.draws.kind} bootstraps")
        lines += held_out_in_words(self.holdout_error)
        cautions = list(self.warnings)
        if unclear := self.unclear():
            cautions.append(
                f"the interval of {', '.join(unclear)} holds zero: the data leave the sign open"
            )
        return "\n".join([*lines, *(f"warning: {text}" for text in cautions)])

    def to_json(self) -> str:
        """The fit as a JSON document, rows included; `paramz.analysis.load_law` reads it back."""
        bounds = self.conf_int() if self._has_intervals else None
        names = [*self.columns.values(), self.loss]
        if self.choices.weights:
            names.append(self.choices.weights)
        document = {
            "law": self.form.name,
            "formula": self.formula,
            "response": self.loss,
            "columns": dict(self.columns),
            "params": {k: float(v) for k, v in self.params.items()},
            "conf_int": None if bounds is None else saved_bounds(bounds),
            "nobs": self.nobs,
            "delta": self.delta,
            "objective": self.objective,
            "scatter": float(self.residuals.std(ddof=0)),
            "warnings": list(self.warnings),
            "converged": self.converged,
            "n_at_best": self.n_at_best,
            "n_starts": self.n_starts,
            "choices": asdict(self.choices),
            "theta": self._theta.tolist(),
            "groups": None if self._groups is None else [str(g) for g in self._groups],
            "rows": saved_rows(self.data, names),
            "held_out": saved_rows(self.held_out, names),
        }
        return json.dumps(document, indent=2)
