"""A fitted law: its parameters, how sure they are, and what it predicts."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, positive
from paramz.analysis.forms import Form
from paramz.analysis.robust import minimize

# Fewer rows than this, and resampling them would leave the law undetermined too often.
PAIRS_FROM = 30
# A prediction this many times outside the fitted range of an input earns a warning.
FAR = 10.0


class LawWarning(UserWarning):
    """A fit or prediction that deserves a second look."""


@dataclass(frozen=True)
class Draws:
    """A bootstrap.

    Attributes:
        params: One row per resample.
        theta: The same, in the form's internal coordinates.
        noise: A log residual for each resample, for predictive intervals.
        kind: "pairs" (rows, or groups of rows, resampled) or "parametric" (normal log residuals
            about the fit, their size drawn as well).
    """

    params: pd.DataFrame
    theta: Array
    noise: Array
    kind: str


@dataclass(frozen=True, eq=False)
class LawFit:
    """What `ScalingLaw.fit` returns. It does not change.

    Attributes:
        form: The law.
        columns: Column of each input.
        loss: Column of the response.
        params: The parameters.
        objective: Sum of Huber losses of the log residuals (not the mean).
        delta: Where the Huber loss turns linear, in log response (about: relative error).
        nobs: Rows fitted.
        converged: Whether the optimizer ended at a minimum.
        n_at_best: How many of the starts reached the best objective.
        n_starts: How many there were.
        residuals: log response minus its fit, per row of the data.
        warnings: What was warned of.
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
    _theta: Array
    _means: Array
    _groups: Array | None

    # -- uncertainty -------------------------------------------------------------------------

    def bootstrap(self, draws: int = 1000, *, kind: str | None = None, seed: int = 0) -> Draws:
        """Refit on resamples, all at once, from the optimum.

        The coverage of the intervals is measured for every form in benchmarks/coverage.py.

        Args:
            draws: How many.
            kind: "pairs" or "parametric"; by default pairs from 30 rows on.
            seed: Seed of the resampling.

        Returns:
            The draws.

        Raises:
            ValueError: There is no such kind, or too few rows for it.
        """
        n, p = self.nobs, len(self.params)
        kind = kind or ("pairs" if n >= PAIRS_FROM else "parametric")
        if kind not in ("pairs", "parametric"):
            raise ValueError(f"no bootstrap {kind!r}: choose 'pairs' or 'parametric'")
        if n <= p:
            raise ValueError(
                f"{n} rows for {p} parameters leave no residuals: no interval can be given"
            )
        rng = np.random.default_rng(seed)
        logs, log_y = self._logs(self.data), np.log(self.data[self.loss].to_numpy(dtype=float))
        residual = self.residuals.to_numpy()
        weights: Array | None = None
        if kind == "pairs":
            weights = _counts(rng, draws, self._groups, n)
            noise = rng.choice(residual, draws) * np.sqrt(n / (n - p))
            target = log_y
        else:
            # Drawing the variance too gives intervals the width of Student's t.
            sigma = np.sqrt(np.sum(residual**2) / rng.chisquare(n - p, draws))
            target = (log_y - residual) + sigma[:, None] * rng.standard_normal((draws, n))
            noise = sigma * rng.standard_normal(draws)
        fits = minimize(
            lambda theta: self.form.evaluate(theta, logs),
            np.repeat(self._theta[None], draws, axis=0),
            target,
            delta=self.delta,
            weights=weights,
            tolerance=1e-8,
        )
        params = pd.DataFrame(self.form.natural(fits.theta, self._means), columns=self.params.index)
        return Draws(params, fits.theta, noise, kind)

    @cached_property
    def draws(self) -> Draws:
        """The bootstrap that intervals are made from unless another is given."""
        return self.bootstrap()

    def conf_int(self, level: float = 0.95, *, draws: Draws | None = None) -> pd.DataFrame:
        """Percentile intervals of the parameters.

        Args:
            level: Their coverage.
            draws: A bootstrap; by default `self.draws`.

        Returns:
            Columns `lo` and `hi`, a row per parameter.
        """
        tail = (1 - level) / 2
        with np.errstate(invalid="ignore"):  # infinite where a resample determines nothing
            found = (draws or self.draws).params.quantile([tail, 1 - tail]).T
        found.columns = pd.Index(["lo", "hi"])
        return found

    def unclear(self) -> list[str]:
        """The parameters whose 95% interval holds zero: the data do not tell their sign."""
        if self.nobs <= len(self.params):
            return []
        bounds = self.conf_int()
        return [str(p) for p in bounds.index[(bounds["lo"] <= 0) & (bounds["hi"] >= 0)]]

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
            data: The columns of the inputs, named as in the fit.
            interval: "predictive" for where a new run will fall, "confidence" for the law alone.
            level: Coverage.
            draws: A bootstrap; by default `self.draws`.

        Returns:
            `mean`, `lo`, `hi`, a row per row of the data.

        Raises:
            ValueError: There is no such kind of interval.
        """
        if interval not in ("predictive", "confidence"):
            raise ValueError(f"no interval {interval!r}: choose 'predictive' or 'confidence'")
        frame = _frame(data)
        logs = self._logs(frame)
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

    @cached_property
    def holdout_error(self) -> pd.DataFrame:
        """The held-out rows: `actual, mean, lo, hi, error` (relative) and `inside` the interval."""
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
            flops: One or more computes.
            per: FLOP per parameter and token, in the units of N and D.
            level: Coverage of the intervals.

        Returns:
            `C, N, N_lo, N_hi, D, D_lo, D_hi` and `exponent, exponent_lo, exponent_hi`, the
            slope of log N over log C.

        Raises:
            ValueError: The law has no inputs N and D.
        """
        if self.form.inputs != ("N", "D"):
            raise ValueError(
                f"the law {self.form.name!r} has the inputs {', '.join(self.form.inputs)}; compute "
                "can be divided between N and D only"
            )
        tail = (1 - level) / 2
        theta = np.concatenate([self._theta[None], self.draws.theta])
        rows = []
        for c in np.atleast_1d(np.asarray(flops, dtype=float)):
            log_c = np.log(c / per)
            at = self._best_log_n(theta, log_c)
            slope = self._best_log_n(theta, log_c + 0.5) - self._best_log_n(theta, log_c - 0.5)
            row = {"C": c}
            for name, values in (
                ("N", np.exp(at)),
                ("D", np.exp(log_c - at)),
                ("exponent", slope),
            ):
                lo, hi = np.quantile(values[1:], [tail, 1 - tail])
                row |= {name: values[0], f"{name}_lo": lo, f"{name}_hi": hi}
            rows.append(row)
        return pd.DataFrame(rows)

    def _best_log_n(self, theta: Array, log_c: float) -> Array:
        """Where along N * D = C the law is lowest: a grid in log N, then a parabola."""
        seen = self._logs(self.data).mean(axis=1) + self._means
        middle = seen[0] + (log_c - seen.sum()) / 2
        grid = middle + np.linspace(-14, 14, 561)
        logs = np.stack([grid - self._means[0], log_c - grid - self._means[1]])
        values, _ = self.form.evaluate(theta, logs)
        rows, at = np.arange(len(theta)), np.clip(values.argmin(axis=1), 1, len(grid) - 2)
        left, here, right = (values[rows, at + i] for i in (-1, 0, 1))
        bend = left - 2 * here + right
        shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
        return np.asarray(grid[at] + np.clip(shift, -1, 1) * (grid[1] - grid[0]))

    # -- robustness --------------------------------------------------------------------------

    def sensitivity(
        self,
        *,
        delta: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
        drop: Sequence[int] = (1, 3, 5),
    ) -> pd.DataFrame:
        """The parameters under other choices: of delta, and without the highest losses.

        Args:
            delta: Values of the Huber delta.
            drop: How many of the highest losses to leave out.

        Returns:
            A row per choice: its name, rows fitted, parameters.
        """
        highest = self.data[self.loss].astype(float).rank(ascending=False, method="first")
        everything: Array = np.ones(self.nobs)
        cases: list[tuple[str, float, Array]] = [(f"delta={d:g}", d, everything) for d in delta]
        cases += [
            (f"without the {k} highest", self.delta, np.asarray(highest > k, dtype=np.float64))
            for k in drop
            if self.nobs - k > len(self.params)
        ]
        logs, log_y = self._logs(self.data), np.log(self.data[self.loss].to_numpy(dtype=float))
        starts = np.concatenate([self._theta[None], self.form.starts(logs, log_y)])
        rows = []
        for name, size, weight in cases:
            fits = minimize(
                lambda theta: self.form.evaluate(theta, logs),
                starts,
                log_y,
                delta=size,
                weights=weight[None],
            )
            best = fits.theta[[int(np.argmin(fits.objective))]]
            found = dict(
                zip(self.params.index, self.form.natural(best, self._means)[0], strict=True)
            )
            rows.append({"change": name, "rows": int(weight.sum())} | found)
        return pd.DataFrame(rows)

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
        if self.nobs > len(self.params):
            table = pd.DataFrame({"value": self.params}).join(self.conf_int())
            table = table.rename(columns={"lo": "2.5%", "hi": "97.5%"})
            lines += [table.to_string(float_format=lambda v: f"{v:.5g}"), self.draws.kind]
            lines[-1] = f"intervals: {len(self.draws.params)} {self.draws.kind} bootstraps"
        else:
            lines.append(self.params.to_string(float_format=lambda v: f"{v:.5g}"))
        for row, held in self.holdout_error.iterrows():
            lines.append(
                f"held out {row}: {held['actual']:.4f}, predicted {held['mean']:.4f} "
                f"[{held['lo']:.4f}, {held['hi']:.4f}], error {held['error']:+.2%}"
            )
        told = list(self.warnings)
        if unclear := self.unclear():
            told.append(f"the interval of {', '.join(unclear)} holds zero: its sign is not told")
        return "\n".join([*lines, *(f"warning: {w}" for w in told)])

    def to_json(self) -> str:
        """The fit as a JSON document; enough to predict with by hand."""
        bounds = self.conf_int() if self.nobs > len(self.params) else None
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

    # -- inside ------------------------------------------------------------------------------

    def _logs(self, frame: pd.DataFrame) -> Array:
        raw = np.stack([np.log(positive(frame, c)) for c in self.columns.values()])
        return np.asarray(raw - self._means[:, None])

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


def _frame(data: pd.DataFrame | Mapping[str, Sequence[float] | float]) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    return pd.DataFrame({k: np.atleast_1d(np.asarray(v, dtype=float)) for k, v in data.items()})


def _counts(rng: np.random.Generator, draws: int, groups: Array | None, rows: int) -> Array:
    """How often each resample holds each row; rows of one group come and go together."""
    if groups is None:
        return rng.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(float)
    _, member = np.unique(groups, return_inverse=True)
    count = member.max() + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    return drawn[:, member].astype(float)
