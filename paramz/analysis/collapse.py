"""Do the training curves of all scales fall on one curve?

With hyperparameters that transfer, (L(t) - E) / (L(T) - E) against t / T is one curve for every
compute-optimally trained scale ("supercollapse", Qiu et al., arXiv 2507.02119); where they do not,
the curves part. E is the floor of the law of the final losses over the scale, as there, or given.
It is not chosen to make the curves agree: a floor of zero makes any curves agree.

Two kinds of seed noise are compared with. Each curve is divided by what it ends above the floor,
which takes off whatever a seed changes in all of it. So ``noise`` is that of the curves before they
are divided, which is what one would see without the collapse; curves that part by less are a
supercollapse. ``within`` is that of the divided curves, and what curves part by when they are truly
one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paramz.analysis.columns import Array, in_order, numbers, positive, require, require_single
from paramz.analysis.law import ScalingLaw
from paramz.analysis.lawfit import LawWarning
from paramz.analysis.outcome import Outcome
from paramz.analysis.statuses import trained

# The first tenth of training is warm-up and shows initialization more than learning.
START = 0.1
# The final losses of a sweep are few, and seed means: none of them is a stray point.
_DELTA = 1e-2
# Curves that are one part by as much as divided seeds do, give or take this factor with few scales
# and seeds; and what they part by at least where they are not one, over what seeds explain.
_SAME = 1.5
_APART = 4 / 3
# Seeds of one scale that end at steps farther apart than this were not trained alike.
_LONGER = 1.05
# Where the log of a run begins at the latest: before its first row a curve counts as flat.
_LATEST = 0.25


@dataclass(frozen=True)
class Collapse:
    """Normalized curves and how far they part.

    Attributes:
        curves: ``scale, progress, loss``: normalized, averaged over seeds.
        floor: the E that was taken off.
        spread: standard deviation across scales over the mean, averaged over progress and seeds.
        noise: the same across seeds within a scale, of the curves before each is divided by its own
            end; NaN with one seed.
        within: the same of the divided curves; NaN with one seed.
        closest: the least that the spread is of what seeds explain, over the 68 % interval of the
            floor; NaN with one seed.
        at_bound: whether the law of the final losses has no floor above zero: then it is not to be
            trusted.
    """

    curves: pd.DataFrame
    floor: float
    spread: float
    noise: float
    within: float
    closest: float
    at_bound: bool

    def __repr__(self) -> str:
        return f"<Collapse {self.outcome}: {self.sentence}>"

    @property
    def outcome(self) -> Outcome:
        """Whether the curves are one: ``"pass"``, ``"fail"``, or ``"undecided"``.

        They are where scales part by no more than seeds do, before the division or, within a factor
        1.5, after it. They are not where scales part by a third more than that with any floor of
        the interval of the law's. One seed leaves it open.
        """
        if np.isnan(self.noise):
            return "undecided"
        if self.spread <= max(self.noise, _SAME * self.within):
            return "pass"
        return "fail" if self.closest > _APART else "undecided"

    @property
    def sentence(self) -> str:
        """The outcome in words, with its numbers."""
        numbers = f"the curves of all scales part by {self.spread:.2%} above E = {self.floor:.4g}"
        if np.isnan(self.noise):
            return f"{numbers}; one seed each: two or more would show how much of it is noise"
        seeds = f"seeds by {self.noise:.2%}, and {self.within:.2%} once each is divided by its end"
        said = {
            "pass": "they are one curve",
            "fail": "they are not one curve",
            "undecided": "whether they are one curve is open: run more seeds",
        }[self.outcome]
        if self.outcome == "pass" and self.spread <= self.noise:
            said += ", closer than seeds are (supercollapse)"
        return f"{numbers}, {seeds}: {said}"


def collapse(
    df: pd.DataFrame,
    *,
    scale: str = "width",
    step: str = "step",
    loss: str = "loss",
    seed: str = "seed",
    floor: float | None = None,
) -> Collapse:
    """Normalize the loss curves of a sweep over scales.

    Args:
        df: one row per logged step of each run.
        scale: column of the scale.
        step: column of the step, or of the tokens; each run ends at its last.
        loss: column of the loss.
        seed: column of the seed; may be absent.
        floor: the loss that no scale goes below, such as the E of a law fitted to more runs; by
            default that of the law of these final losses over the scale, which takes three scales.

    Returns:
        the curves and their spread.

    Raises:
        KeyError: a column is missing.
        ValueError: there are fewer than two scales, or three where no floor is given; the floor is
            not below every final loss; two rows are of the same scale, seed and step; a run did not
            end well, by a column ``status``, ends earlier than another seed of its scale, or is
            logged from later than a quarter of its steps on; or a column holds values that cannot
            be used.

    >>> rows = [{"width": w, "step": t, "loss": 1.5 + 40 / w * t**-0.5}
    ...         for w in (32, 64, 128) for t in range(1, 101)]
    >>> found = collapse(pd.DataFrame(rows))
    >>> round(found.floor, 2), found.spread < 0.01
    (1.5, True)
    """
    require(df, scale, step, loss)
    sizes = np.unique(positive(df, scale))
    if len(sizes) < 2:
        raise ValueError(f"a collapse compares scales, but {scale!r} has one value, {sizes[0]:g}")
    if not np.isfinite(numbers(df, loss)).all():
        raise ValueError(f"column {loss!r} holds losses that are not finite: leave those runs out")
    if len(whole := trained(df)) < len(df):
        raise ValueError(
            f"{len(df) - len(whole)} rows are of runs that did not end well, by their status, and "
            "a curve that was cut short has its end elsewhere: leave those runs out"
        )
    keys = [scale, seed, step] if seed in df.columns else [scale, step]
    require_single(
        df,
        *keys,
        way_out="one curve for each scale and seed is compared: select the runs of one setting, "
        f"such as one learning rate, and name the column of the seeds (seed={seed!r})",
    )
    progress = np.linspace(START, 1, 60)
    runs: dict[float, Array] = {}
    for size in sizes:
        part = df[numbers(df, scale) == size]
        seeds = list(part.groupby(seed, dropna=False)) if seed in df.columns else [(0, part)]
        last = [numbers(r, step).max() for _, r in seeds]
        if max(last) > _LONGER * min(last):
            raise ValueError(
                f"runs of {scale} {size:g} end at {step} {min(last):g} and {max(last):g}: each "
                "curve is divided by its end, so leave out those that were cut short"
            )
        runs[float(size)] = np.stack([_on_grid(r, step, loss, progress) for _, r in seeds])
    ends = np.array([c[:, -1].mean() for c in runs.values()])
    lowest = min(c[:, -1].min() for c in runs.values())
    known = floor is not None
    levels = _floors(sizes, ends, scale) if floor is None else np.array([float(floor)])
    level = float(levels[0])
    if known and not 0 <= level < lowest:
        raise ValueError(
            f"the floor {level:g} must be below every final loss, the lowest of which is {lowest:g}"
        )
    if not known:  # a law may put its floor above the luckiest seed
        levels = np.minimum(levels, lowest - 0.05 * np.ptp(ends) - 1e-3 * abs(lowest))
    found = [_parts(list(runs.values()), value) for value in levels]
    means = np.stack([_divided(curves, levels[0]).mean(axis=0) for curves in runs.values()])
    curves = pd.DataFrame(
        {
            "scale": np.repeat(list(runs), len(progress)),
            "progress": np.tile(progress, len(runs)),
            "loss": means.ravel(),
        }
    )
    spread, noise, within = found[0]
    return Collapse(
        curves,
        float(levels[0]),
        spread,
        noise,
        within,
        min(s / max(n, _SAME * w) for s, n, w in found),
        not known and level <= 1e-4 * lowest,
    )


def _parts(runs: list[Array], floor: float) -> tuple[float, float, float]:
    """Spread, noise and noise within, as `Collapse` has them, for a floor."""
    several = [curves for curves in runs if len(curves) > 1]
    spread = _across([_divided(curves, floor) for curves in runs])
    if not several:
        return spread, float("nan"), float("nan")
    noise = float(np.mean([_spread(curves - floor) for curves in several]))
    return spread, noise, float(np.mean([_spread(_divided(curves, floor)) for curves in several]))


def _divided(curves: Array, floor: float) -> Array:
    return (curves - floor) / (curves[:, -1:] - floor)


def _floors(sizes: Array, ends: Array, scale: str) -> Array:
    """The floor of the law of the final losses, then floors over its 68 % interval."""
    if len(sizes) < 3:
        raise ValueError(
            f"the floor comes from a law of the final losses, which needs 3 values of {scale!r}, "
            f"you have {len(sizes)}: run more, or give floor="
        )
    table = pd.DataFrame({"scale": sizes, "loss": ends})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        fit = ScalingLaw("power").fit(table, delta=_DELTA, scale="scale")
        if len(sizes) == len(fit.params):
            return np.array([fit.params["E"]])
        low, high = fit.bootstrap(200).params["E"].quantile([0.16, 0.84])
    return np.array([fit.params["E"], *np.linspace(low, high, 9)])


def _on_grid(run: pd.DataFrame, step: str, loss: str, progress: Array) -> Array:
    """The losses of a run at these shares of its steps."""
    run = in_order(run, step)
    t = numbers(run, step)
    if t[0] > _LATEST * t[-1]:
        raise ValueError(
            f"a run is logged from {step} {t[0]:g} of {t[-1]:g} on, and curves are compared from "
            f"{START:.0%} of each on: log from earlier, or give the whole of its history"
        )
    return np.interp(progress, t / t[-1], numbers(run, loss))


def _across(curves: list[Array]) -> float:
    """The spread of one curve per scale, averaged over the seeds taken.

    Averages over seeds would part by less than single curves do, which seed noise is measured by.
    """
    count = max(len(c) for c in curves)
    return float(
        np.mean([_spread(np.stack([c[i % len(c)] for c in curves])) for i in range(count)])
    )


def _spread(curves: Array) -> float:
    """Standard deviation over the mean, averaged over progress."""
    return float((curves.std(axis=0, ddof=1) / curves.mean(axis=0)).mean())
