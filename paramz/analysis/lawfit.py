"""A fitted law: its parameters, how sure they are, and what it predicts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from paramz.analysis.allocation import allocate
from paramz.analysis.columns import Array, positive
from paramz.analysis.forms import Form
from paramz.analysis.problem import Problem
from paramz.analysis.refits import Draws, bootstrap, sensitivity

# A prediction this many times outside the fitted range of an input earns a warning.
FAR = 10.0


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
        objective: sum of Huber losses of the log residuals (not the mean).
        delta: where the Huber loss turns linear, in log response (about: relative error).
        nobs: number of rows that were fitted.
        converged: whether the optimizer ended at a minimum.
        n_at_best: how many of the starts reached the best objective.
        n_starts: how many starts there were.
        residuals: log response minus its fit, per row of the data.
        warnings: the texts of the warnings that the fit gave.
        data: the rows that were fitted.
        held_out: the rows that were not.
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
    _problem: Problem
    _theta: Array
    _groups: Array | None

    # -- uncertainty -------------------------------------------------------------------------

    def bootstrap(self, draws: int = 1000, *, kind: str | None = None, seed: int = 0) -> Draws:
        """Refit on resamples, all at once, from the optimum.

        The coverage of the intervals is measured for every form in ``benchmarks/coverage.py``.

        Args:
            draws: number of resamples.
            kind: ``"pairs"`` or ``"parametric"``; by default pairs from 30 rows on.
            seed: seed of the resampling.

        Returns:
            the draws.

        Raises:
            ValueError: there is no such kind, or no more rows than parameters.
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
        return self.nobs > len(self.params)

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

        Args:
            data: the columns of the inputs, named as in the fit.
            interval: ``"predictive"`` for where a new run will fall, ``"confidence"`` for the law
                alone.
            level: coverage.
            draws: a bootstrap; by default ``self.draws``.

        Returns:
            ``mean``, ``lo``, ``hi``, a row per row of the data.

        Raises:
            ValueError: there is no such kind of interval.
        """
        if interval not in ("predictive", "confidence"):
            raise ValueError(f"no interval {interval!r}: choose 'predictive' or 'confidence'")
        frame = _frame(data)
        logs = self._problem.logs_of(frame)
        self._warn_if_far(frame)
        sample = draws or self.draws
        value, _ = self.form.evaluate(self._theta[None], logs)
        values, _ = self.form.evaluate(sample.theta, logs)
        if interval == "predictive":
            values = values + sample.noise[:, None]
        tail = (1 - level) / 2
        lo, hi = np.quantile(np.clip(values, -700, 700), [tail, 1 - tail], axis=0)
        return pd.DataFrame(
            {"mean": np.exp(value[0]), "lo": np.exp(lo), "hi": np.exp(hi)}, index=frame.index
        )

    def _warn_if_far(self, frame: pd.DataFrame) -> None:
        for column in self.columns.values():
            seen, asked = positive(self.data, column), positive(frame, column)
            ratio = max(asked.max() / seen.max(), seen.min() / asked.min())
            if ratio > FAR:
                warnings.warn(
                    f"{column} lies up to {ratio:.3g} times outside the fitted range "
                    f"{seen.min():.4g} to {seen.max():.4g}: the interval is right only if the law "
                    "still holds there",
                    LawWarning,
                    stacklevel=3,
                )

    @cached_property
    def holdout_error(self) -> pd.DataFrame:
        """The held-out rows: ``actual, mean, lo, hi``, relative ``error``, ``inside`` the interval.

        A row per row that was held out.
        """
        if self.held_out.empty:
            return pd.DataFrame(columns=["actual", "mean", "lo", "hi", "error", "inside"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LawWarning)
            found = self.predict(self.held_out)
        actual = self.held_out[self.loss].astype(float)
        inside = (found["lo"] <= actual) & (actual <= found["hi"])
        error = found["mean"] / actual - 1
        return found.assign(actual=actual, error=error, inside=inside)[
            ["actual", "mean", "lo", "hi", "error", "inside"]
        ]

    def optimal_allocation(
        self, flops: float | Sequence[float], *, per: float = 6.0, level: float = 0.95
    ) -> pd.DataFrame:
        """The parameters N and tokens D that minimize the loss for a compute C = per * N * D.

        Args:
            flops: one or more computes.
            per: FLOP per parameter and token, in the units of N and D.
            level: coverage of the intervals.

        Returns:
            ``C, N, N_lo, N_hi, D, D_lo, D_hi`` and ``exponent, exponent_lo, exponent_hi``, the
            slope of log N over log C.

        Raises:
            ValueError: the inputs of the law are not N and D.
        """
        if self.form.inputs != ("N", "D"):
            raise ValueError(
                f"the law {self.form.name!r} has the inputs {', '.join(self.form.inputs)}; compute "
                "can be divided between N and D only"
            )
        theta = np.concatenate([self._theta[None], self.draws.theta])
        return allocate(self._problem, theta, flops, per, level)

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
        inside = int((self.residuals.abs() <= self.delta).sum())
        lines = [
            f"{self.loss} = {self.formula}",
            f"{self.nobs} rows, Huber delta {self.delta:g} ({inside} residuals inside), "
            f"objective {self.objective:.6g}, {self.n_at_best} of {self.n_starts} starts at it",
            f"scatter about the law: {self.residuals.std(ddof=0):.2%}",
        ]
        if self._has_intervals:
            table = pd.DataFrame({"value": self.params}).join(self.conf_int())
            table = table.rename(columns={"lo": "2.5%", "hi": "97.5%"})
            lines.append(table.to_string(float_format=lambda v: f"{v:.5g}"))
            lines.append(f"intervals: {len(self.draws.params)} {self.draws.kind} bootstraps")
        else:
            lines.append(self.params.to_string(float_format=lambda v: f"{v:.5g}"))
        for row, held in self.holdout_error.iterrows():
            lines.append(
                f"held out {row}: {held['actual']:.4f}, predicted {held['mean']:.4f} "
                f"[{held['lo']:.4f}, {held['hi']:.4f}], error {held['error']:+.2%}"
            )
        cautions = list(self.warnings)
        if unclear := self.unclear():
            cautions.append(
                f"the interval of {', '.join(unclear)} holds zero: the data leave the sign open"
            )
        return "\n".join([*lines, *(f"warning: {text}" for text in cautions)])

    def to_json(self) -> str:
        """The fit as a JSON document; enough to predict with by hand."""
        bounds = self.conf_int() if self._has_intervals else None
        document = {
            "law": self.form.name,
            "formula": self.formula,
            "response": self.loss,
            "columns": dict(self.columns),
            "params": {k: float(v) for k, v in self.params.items()},
            "conf_int": None
            if bounds is None
            else {str(k): [float(r["lo"]), float(r["hi"])] for k, r in bounds.iterrows()},
            "nobs": self.nobs,
            "delta": self.delta,
            "objective": self.objective,
            "scatter": float(self.residuals.std(ddof=0)),
            "warnings": list(self.warnings),
        }
        return json.dumps(document, indent=2)


def _frame(data: pd.DataFrame | Mapping[str, Sequence[float] | float]) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    return pd.DataFrame({k: np.atleast_1d(np.asarray(v, dtype=float)) for k, v in data.items()})
