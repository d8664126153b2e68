"""The critical batch size: how many steps a larger batch saves, and how many examples it costs.

McCandlish et al., arXiv 1812.06162, eq. 2.7: reaching a loss takes S steps and E = batch S examples
with (S / S_min - 1) (E / E_min - 1) = 1, which is S = S_min + E_min / batch. The critical batch
size is E_min / S_min, where both are twice their least.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import in_order, numbers, positive, require, require_single
from paramz.analysis.law import ScalingLaw
from paramz.analysis.lawfit import LawFit, LawWarning

# Steps to a loss scatter by percents, and a batch that was tuned badly is no outlier to be ignored.
_DELTA = 0.1
# A loss that is above the target once more after this many times the steps to it is too noisy.
_ROUGH = 1.1


@dataclass(frozen=True, eq=False)
class CriticalBatch:
    """How steps and examples to a loss trade against each other.

    Attributes:
        target: the loss to be reached.
        points: ``batch, steps, examples``: what reaching it took, the best run of each batch size.
        unreached: batch sizes whose runs never reached it.
        steps: the fewest steps, with any batch.
        examples: the fewest examples, with small batches.
        critical: the critical batch size, in the units of the batch.
        lo: the lower end of its 95 % interval.
        hi: the upper end.
        fit: the law of the steps over the batch.
        warnings: what to be careful about.
    """

    target: float
    points: pd.DataFrame
    unreached: tuple[float, ...]
    steps: float
    examples: float
    critical: float
    lo: float
    hi: float
    fit: LawFit
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<CriticalBatch {self.sentence}>"

    @property
    def sentence(self) -> str:
        """The result in words."""
        return (
            f"critical batch size at loss {self.target:g}: {self.critical:.4g} (95% {self.lo:.4g} "
            f"to {self.hi:.4g}); at least {self.steps:.4g} steps or {self.examples:.4g} examples"
        )


def critical_batch(
    df: pd.DataFrame,
    target: float,
    *,
    batch: str = "batch",
    step: str = "step",
    loss: str = "loss",
    runs: str | Sequence[str] = (),
) -> CriticalBatch:
    """Fit the trade between steps and examples to the curves of several batch sizes.

    Args:
        df: one row per logged step of each run. Tune the learning rate for each batch size: the
            best run of each counts.
        target: the loss to be reached.
        batch: column of the batch size, in examples or tokens.
        step: column of the step.
        loss: column of the loss, smoothed or of held-out data.
        runs: columns that tell runs of one batch size apart, such as the learning rate and seed.

    Returns:
        the critical batch size and what it comes from.

    Raises:
        KeyError: a column is missing.
        ValueError: fewer than four batch sizes reach the loss, two rows are of the same run and
            step, or a column holds values that cannot be used.

    >>> rows = [{"batch": b, "step": t, "loss": 2 + (1 + 512 / b) / t}
    ...         for b in (64, 128, 256, 512, 1024) for t in range(1, 300)]
    >>> found = critical_batch(pd.DataFrame(rows), 2.05)
    >>> round(found.critical, -1), round(found.steps)
    (510.0, 20)
    """
    names = [runs] if isinstance(runs, str) else list(runs)
    require(df, batch, step, loss, *names)
    require_single(
        df, *names, batch, step,
        way_out="name the columns that tell runs of a batch size apart, as in runs=['lr', 'seed']",
    )  # fmt: skip
    rows, unreached, early, rough = [], [], [], []
    for size, part in df.assign(**{batch: positive(df, batch)}).groupby(batch):
        groups = [p for _, p in part.groupby(names, dropna=False)] if names else [part]
        found = [s for p in groups if (s := _steps_to(p, target, step, loss)) is not None]
        if not found:
            unreached.append(float(str(size)))
            continue
        best = min(found, key=lambda reached: reached.step)
        if best.first:
            early.append(f"{float(str(size)):g}")
            continue
        rows.append({"batch": float(str(size)), "steps": best.step})
        if best.again > _ROUGH * best.step:
            rough.append(f"{float(str(size)):g}")
    if len(rows) < 4:
        raise ValueError(
            f"the trade between steps and examples needs 4 batch sizes that reach the loss "
            f"{target:g}, you have {len(rows)}"
            + (f"; these do not: {', '.join(f'{b:g}' for b in unreached)}" if unreached else "")
            + (f"; these lie below it at their first log: {', '.join(early)}" if early else "")
            + f": run more batch sizes, or choose a {'lower' if early else 'higher'} loss"
        )
    points = pd.DataFrame(rows)
    points["examples"] = points["batch"] * points["steps"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LawWarning)
        law = ScalingLaw("power", fixed={"alpha": 1.0})
        fit = law.fit(points, loss="steps", delta=_DELTA, batch="batch")
        draws = fit.draws.params
    told = [str(w.message) for w in caught if "delta" not in str(w.message)]
    if early:
        told.append(
            f"batch sizes {', '.join(early)} lie below the loss {target:g} at their first log, "
            "before which they may have reached it long since: they are left out; log more often"
        )
    if rough:
        told.append(
            f"at batch sizes {', '.join(rough)} the loss comes back above {target:g} long after it "
            "first fell below, so that the steps to it are too few: smooth it"
        )
    critical = float(fit.params["A"] / fit.params["E"])
    ratio = draws["A"] / draws["E"].clip(lower=1e-300)
    lo, hi = ratio.quantile([0.025, 0.975])
    low, high = points["batch"].min(), points["batch"].max()
    if not low < critical < high:
        told.append(
            f"the critical batch size lies outside the batch sizes run, {low:g} to {high:g}: run "
            f"{'larger' if critical > high else 'smaller'} ones"
        )
    return CriticalBatch(
        target, points, tuple(unreached), float(fit.params["E"]), float(fit.params["A"]), critical,
        float(lo), float(hi), fit, tuple(told),
    )  # fmt: skip


@dataclass(frozen=True)
class _Reached:
    """Where a run reached a loss: at which step; whether at its first; where last above it."""

    step: float
    first: bool
    again: float


def _steps_to(run: pd.DataFrame, target: float, step: str, loss: str) -> _Reached | None:
    """The step at which a run first reaches a loss, interpolated; None where it does not."""
    run = in_order(run, step)
    t, y = numbers(run, step), numbers(run, loss)
    t, y = t[~np.isnan(y)], y[~np.isnan(y)]
    under = np.flatnonzero(y <= target)
    if not len(under):
        return None
    k = int(under[0])
    if k == 0:
        return _Reached(float(t[0]), True, float(t[0]))
    share = (y[k - 1] - target) / (y[k - 1] - y[k]) if np.isfinite(y[k - 1]) else 1.0
    above = np.flatnonzero(y > target)
    return _Reached(float(t[k - 1] + share * (t[k] - t[k - 1])), False, float(t[above[-1]]))
