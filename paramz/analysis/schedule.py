"""The loss over a learning-rate schedule: fitted to one schedule, predicted for another.

The multi-power law of Luo et al., arXiv 2503.12811. With the learning rates eta_1 .. eta_t and S(t)
their sum, every drop of the rate takes off a loss that comes in as training goes on:

    L(t) = L0 + A S(t)^-alpha - B sum_k (eta_(k-1) - eta_k) G(eta_k^-gamma (S(t) - S(k-1)))
    G(x) = 1 - (1 + C x)^-beta

It holds after warm-up, which counts in S alone (their S_1(t) + S_W). A rate that rises again gives
back what its drops gained. Compared with the formula of the paper and of the authors' code
(github.com/thu-yao-01-luo/MultiPowerLaw, models.py), term by term.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, in_order, numbers, positive, require, require_single
from paramz.analysis.forms.function import slopes
from paramz.analysis.forms.starts import project
from paramz.analysis.robust import minimize

PARAMS = ("L0", "A", "B", "alpha", "C", "beta", "gamma")

# As in the paper: the Huber loss of log residuals.
_DELTA = 1e-3
# Drops of the rate are gathered into at most this many, each where its part of the fall begins, and
# curves are thinned to this many points: a smooth curve loses nothing that a fit could see.
_DROPS = 60
_POINTS = 100
# A parameter is left open if its logarithm has a larger standard error than this, and losses are
# not taken to be more exact than that.
_OPEN, _EXACT = 1.0, 1e-5
# With a larger beta and a smaller C the law stays the same: an exponential.
_MOST_BETA = 3.0


@dataclass(frozen=True, eq=False)
class _Curve:
    """What the law needs of a schedule at the steps of interest.

    Attributes:
        total: sum of the rates up to each step, shape (points,).
        drops: how far the rate falls at each event, below zero where it rises, shape (events,).
        rate: the rate after it, shape (events,).
        since: sum of the rates from it to each step, shape (events, points), zero before.
    """

    total: Array
    drops: Array
    rate: Array
    since: Array


@dataclass(frozen=True, eq=False)
class ScheduleFit:
    """A multi-power law.

    Attributes:
        params: L0, A, B, alpha, C, beta, gamma.
        scatter: standard deviation of the log residuals.
        nobs: the number of logged losses that were fitted.
        converged: whether the optimizer ended at a minimum.
        warnings: what to be careful about, such as parameters that the curves leave open.
    """

    params: pd.Series
    scatter: float
    nobs: int
    converged: bool
    warnings: tuple[str, ...]
    _theta: Array

    def __repr__(self) -> str:
        values = ", ".join(f"{name} = {value:.4g}" for name, value in self.params.items())
        return f"<ScheduleFit {values}; scatter {self.scatter:.2%}>"

    def predict(
        self, schedule: pd.DataFrame, *, step: str = "step", lr: str = "lr"
    ) -> pd.DataFrame:
        """The loss along another schedule of the same model, data and batch size.

        Args:
            schedule: a row per step, or per step at which the rate changes slope; rates in between
                are interpolated.
            step: column of the step.
            lr: column of the learning rate.

        Returns:
            ``step, lr, loss``, from the highest rate on.

        Raises:
            KeyError: a column is missing.
            ValueError: a column holds values that cannot be used.
        """
        steps, rates = _rates(schedule, step, lr)
        at = steps[_after_peak(rates)]
        rows = schedule[np.isin(numbers(schedule, step), at)]
        curve = _curve(steps, rates, numbers(rows, step))
        return pd.DataFrame(
            {
                "step": numbers(rows, step),
                "lr": numbers(rows, lr),
                "loss": np.exp(_value(self._theta[None], curve)[0]),
            },
            index=rows.index,
        )


def fit_schedule(
    df: pd.DataFrame, *, step: str = "step", lr: str = "lr", loss: str = "loss", run: str = "run"
) -> ScheduleFit:
    """Fit the multi-power law to the curves of one model under one or more schedules.

    Args:
        df: one row per logged step; steps before the highest rate are left out, and count in the
            sum of rates.
        step: column of the step.
        lr: column of the learning rate at it; rates in between are interpolated.
        loss: column of the loss, smoothed or of held-out data.
        run: column that tells runs apart; may be absent where there is one.

    Returns:
        the law.

    Raises:
        KeyError: a column is missing.
        ValueError: the rate falls in no run, there are too few losses, two rows are of the same run
            and step, or a column holds values that cannot be used.
    """
    require(df, step, lr, loss)
    require_single(
        df,
        *([run] if run in df.columns else []),
        step,
        way_out=f"name the column that tells runs apart (run={run!r})",
    )
    curves, targets = [], []
    for _, part in df.groupby(run, dropna=False) if run in df.columns else [(0, df)]:
        steps, rates = _rates(part, step, lr)
        part = in_order(part, step)
        part = part[numbers(part, step) >= steps[_after_peak(rates)][0]]
        keep = np.unique(np.linspace(0, len(part) - 1, _POINTS).round().astype(int))
        part = part.iloc[keep]
        curves.append(_curve(steps, rates, numbers(part, step)))
        targets.append(np.log(positive(part, loss)))
    if not any((c.drops > 0).any() for c in curves):
        raise ValueError(
            f"column {lr!r} never falls, so what a falling rate gains is not seen: add a run whose "
            "schedule decays"
        )
    target = np.concatenate(targets)
    if len(target) < 2 * len(PARAMS):
        raise ValueError(
            f"a multi-power law needs {2 * len(PARAMS)} logged losses after the warm-up, you have "
            f"{len(target)}: log more often"
        )
    unit = float(np.mean([c.total[-1] for c in curves]))  # exponents act on numbers near one

    def predict(theta: Array, _: Array) -> Array:
        return np.concatenate([_value(theta, c) for c in curves], axis=1)

    starts = _starts(curves, target, unit)
    fits = minimize(
        lambda theta: slopes(predict, theta, target[None]),
        starts,
        target,
        delta=_DELTA,
        tolerance=1e-7,
    )
    best = int(np.argmin(fits.objective))
    theta = fits.theta[best]
    residual = target - predict(theta[None], target[None])[0]
    told = []
    if len(curves) == 1 and (curves[0].rate.min() > 0.5 * curves[0].rate.max()):
        told.append("the rate falls to no less than half: longer decays are extrapolated")
    if not fits.converged[best]:
        told.append("the optimizer did not end at a minimum: treat the parameters as a guess")
    loose = _left_open(slopes(predict, theta[None], target[None])[1][0], residual)
    if loose:
        told.append(
            f"the curves leave {', '.join(loose)} open: each may be off by a factor of three or "
            "more that the others make up for on schedules like these; to predict one that "
            "differs, add a run whose rate falls at another step and to another level"
        )
    params = pd.Series(np.exp(theta), index=list(PARAMS))
    return ScheduleFit(
        params.clip(upper=pd.Series({"beta": _MOST_BETA}).reindex(params.index, fill_value=np.inf)),
        float(residual.std()),
        len(target),
        bool(fits.converged[best]),
        tuple(told),
        theta,
    )


def _left_open(jacobian: Array, residual: Array) -> list[str]:
    """Parameters whose logarithm has a standard error above one.

    Args:
        jacobian: of log losses in logarithms of the parameters, shape (parameters, rows).
        residual: log residuals, shape (rows,).
    """
    freedom = max(residual.size - len(PARAMS), 1)
    noise = max(float(residual @ residual) / freedom, _EXACT**2)
    # Directions that no loss sees have no error that could be computed.
    size, axes = np.linalg.eigh(jacobian @ jacobian.T)
    error = axes**2 @ (noise / np.maximum(size, 1e-15 * size[-1]))
    return [name for name, e in zip(PARAMS, error, strict=True) if e > _OPEN**2]


def _value(theta: Array, curve: _Curve) -> Array:
    """Log losses, shape (fits, points), from logarithms of the parameters, shape (fits, 7)."""
    out = []
    for l0, a, b, alpha, c, beta, gamma in np.exp(np.clip(theta, -60, 60)):
        x = curve.rate[:, None] ** -gamma * curve.since
        beta = min(beta, _MOST_BETA)
        gain = curve.drops @ -np.expm1(-beta * np.log1p(c * x))
        # A start may predict a loss below zero; its logarithm must be a number to get away from it.
        out.append(np.log(np.maximum(l0 + a * curve.total**-alpha - b * gain, 1e-6)))
    return np.array(out)


def _starts(curves: list[_Curve], target: Array, unit: float) -> Array:
    """By projection: at given powers the law is linear in L0, A and B."""
    total = np.concatenate([c.total for c in curves])
    peak = max(float(c.rate.max()) for c in curves if len(c.rate))

    def basis(at: tuple[float, ...]) -> Array:
        alpha, c, beta, gamma = np.exp(at)
        gains = [
            x.drops @ -np.expm1(-beta * np.log1p(c * x.rate[:, None] ** -gamma * x.since))
            for x in curves
        ]
        return np.stack([np.ones_like(total), total**-alpha, -np.concatenate(gains)])

    grid = [
        (np.log(alpha), np.log(reach / (unit * peak**-gamma)), np.log(beta), np.log(gamma))
        for alpha, reach, beta, gamma in product(
            (0.2, 0.4, 0.7), (3.0, 30.0, 300.0), (0.3, 0.7), (0.3, 0.7)
        )
    ]
    return project(grid, basis, target)


def _rates(df: pd.DataFrame, step: str, lr: str) -> tuple[Array, Array]:
    """Every step up to the last, and its rate."""
    require(df, step, lr)
    df = in_order(df, step)
    at, rate = numbers(df, step), numbers(df, lr)
    if not (np.isfinite(at).all() and np.isfinite(rate).all() and (rate >= 0).all()):
        raise ValueError(
            f"columns {step!r} and {lr!r} must hold finite numbers, rates not below zero"
        )
    steps = np.unique(np.concatenate([np.arange(np.ceil(at[0]), at[-1] + 1), at]))
    return steps, np.interp(steps, at, rate)


def _after_peak(rates: Array) -> slice:
    """The steps from the highest rate on, the first where several are highest."""
    return slice(int(np.argmax(rates >= rates.max() * (1 - 1e-9))), None)


def _curve(steps: Array, rates: Array, at: Array) -> _Curve:
    total = np.cumsum(rates * np.diff(steps, prepend=steps[0] - 1))
    first = _after_peak(rates).start
    fall = rates[first:-1] - rates[first + 1 :]
    place = first + 1 + np.flatnonzero(fall)
    drops = fall[fall != 0]
    if len(drops) > _DROPS:
        share = np.cumsum(np.abs(drops)) / np.abs(drops).sum()
        group = np.minimum((share * _DROPS).astype(int), _DROPS - 1)
        middle = [int(np.median(np.flatnonzero(group == g))) for g in np.unique(group)]
        drops = np.bincount(group, drops)[np.unique(group)]
        place = place[middle]
    here = np.interp(at, steps, total)
    before = total[place - 1] if len(place) else np.zeros(0)
    since = np.maximum(here[None] - before[:, None], 0.0)
    # A rate of zero has no power; the least above zero stands for it.
    floor = rates[rates > 0].min(initial=1.0)
    return _Curve(here, drops, np.maximum(rates[place], floor) if len(place) else before, since)
