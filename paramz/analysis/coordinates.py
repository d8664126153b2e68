"""The judgement on a coordinate check: slopes with intervals, pass or fail, culprit and cause.

Imports no torch, so that a report or a notebook can judge a table that was saved.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, stats

if TYPE_CHECKING:
    import pandas as pd


# Inside a numbered module, such as blocks.1.attention.
_INSIDE = re.compile(r"(^|[.])[0-9]+[.]")
_EXPERT = re.compile(r"(^|[.])experts[.][0-9]+([.]|$)")

# What a check may vary; the table has one of these columns.
AXES = ("width", "depth", "experts")


def axis_of(df: pd.DataFrame) -> str:
    """The column of a coordinate check that holds its scale.

    Raises:
        ValueError: it has none of them, or several.

    >>> import pandas as pd
    >>> axis_of(pd.DataFrame({"depth": [2, 4], "rms": [1.0, 1.0]}))
    'depth'
    """
    found = [axis for axis in AXES if axis in df.columns]
    if len(found) != 1:
        raise ValueError(
            f"a coordinate check has one of the columns {', '.join(AXES)}; this table has "
            f"{', '.join(df.columns)}"
        )
    return found[0]


@dataclass(frozen=True)
class Slope:
    """How one quantity of one module moves with width (or depth, or experts): log against log.

    Attributes:
        module: its path.
        role: the role of its weight, empty for containers.
        step: updates made so far.
        quantity: ``delta``, ``update`` or ``output``.
        slope: least squares over scales and seeds.
        lo, hi: its 95 % interval (Student's t over the residuals).
        passed: whether it is within the tolerance where it is judged; None where it is not.
        proved: a failure whose whole interval lies beyond the tolerance.
    """

    module: str
    role: str
    step: int
    quantity: str
    slope: float
    lo: float
    hi: float
    passed: bool | None
    proved: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether a coordinate check passed, by what numbers, and if not, where and why.

    Attributes:
        passed: all judged slopes are within the tolerance. Where one is not, but the interval of
            none lies wholly beyond it, the sentence says UNDECIDED instead of FAIL.
        tolerance: the largest absolute slope that passes.
        culprit: the first failing module in forward order, None when passed.
        sentence: the verdict with its numbers, for people.
        slopes: all slopes, in forward order.
    """

    parametrization: str
    optimizer: str
    lr: float
    passed: bool
    tolerance: float
    culprit: str | None
    sentence: str
    slopes: tuple[Slope, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as written beside the table."""
        return asdict(self)

    def save(self, df: pd.DataFrame, folder: str | Path, label: str) -> Path:
        """Write ``<label>.csv`` and ``<label>.json`` for `paramz report`; returns the csv path."""
        directory = Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        table = directory / f"{label}.csv"
        df.to_csv(table, index=False)
        text = json.dumps(self.to_json(), indent=1)
        (directory / f"{label}.json").write_text(text + "\n", encoding="utf-8")
        return table


def judge(df: pd.DataFrame, *, tolerance: float = 0.1, lr: float | None = None) -> Verdict:
    """Judge a coordinate check.

    Every module but readouts passes when the slope of its output's change (``delta``) is within the
    tolerance at every step. A readout (over width a router is one, too) passes when its change does
    not grow beyond the tolerance and the part made by its own update is flat at the largest width:
    its change contains random sums (the initial readout acting on changed features, features that
    the batch does not share) which shrink like width^-1/2 and are no failure. Where the update's
    slope is below -tolerance, its squares are fitted by ``limit^2 + random^2 / width`` and that
    curve's slope at the largest width is judged: it is -1/2 where there is no limit, as when the
    learning rate falls too fast.

    Modules that output the same at all times (rotary tables) and modules around a readout, which
    repeat it, are not judged.

    Over depth the state after each block is judged, and what is outside the blocks: inside a block,
    Depth-muP lets the parts made by single layers shrink, and a layer sees its state a part of a
    block later in a shallow model than in a deep one. Modules inside one of a list of experts are
    not judged either: they see other tokens at every step.

    Args:
        df: as returned by `paramz.coord_check`, of one parametrization and optimizer.
        tolerance: the largest absolute slope that passes.
        lr: which learning rate to judge; the middle one if left out.

    Raises:
        ValueError: the table is empty or mixes parametrizations, lr is not in it, or activations
            are not finite at every width.
    """
    names = df[["parametrization", "optimizer"]].drop_duplicates()
    if len(names) != 1:
        raise ValueError(
            f"a verdict is on one parametrization and optimizer; the table has {len(names)}"
        )
    lrs = sorted(df.lr.unique())
    chosen = lrs[(len(lrs) - 1) // 2] if lr is None else lr
    # A table read from CSV has the empty role of containers as a missing value.
    part = df[df.lr == chosen].fillna({"role": ""})
    if part.empty:
        raise ValueError(f"lr={lr} is not in the table; it has {lrs}")
    axis = axis_of(df)
    bad = part[~np.isfinite(part.rms)]
    if not bad.empty:
        first = bad.iloc[0]
        raise ValueError(
            f"activations of {first.module} are not finite at {axis} {first[axis]}, step "
            f"{first.step}, lr {chosen:.4g}: the check diverged; lower lr"
        )
    slopes = _slopes(part, axis, tolerance)
    failures = [s for s in slopes if s.passed is False]
    name, optimizer = names.iloc[0]
    span = f"{axis} {part[axis].min()} to {part[axis].max()}, lr {chosen:.4g}"
    head = f"{name} with {optimizer}, {span}"
    culprit = None
    if failures:
        proved = [s for s in failures if s.proved]
        worst = (proved or failures)[0]
        culprit = worst.module
        what = (
            f"{head}: {culprit} changes like {axis}^{worst.slope:+.2f} "
            f"[{worst.lo:+.2f}, {worst.hi:+.2f}] at step {worst.step}"
        )
        if proved:
            cause = _cause(slopes, worst, tolerance, axis)
            sentence = f"FAIL: {what}, beyond ±{tolerance:g}. Likely cause: {cause}"
        else:
            sentence = (
                f"UNDECIDED: {what}; the interval reaches into ±{tolerance:g}, so more seeds or "
                "a wider range must decide"
            )
    else:
        judged = [s for s in slopes if s.passed]
        worst = max(judged, key=lambda s: abs(s.slope) if s.role != "output" else 0.0)
        sentence = (
            f"PASS: {head}: all {len({s.module for s in judged})} judged modules within "
            f"±{tolerance:g}; the largest slope is {worst.slope:+.2f} "
            f"[{worst.lo:+.2f}, {worst.hi:+.2f}] ({worst.module}, step {worst.step})"
        )
    return Verdict(
        parametrization=str(name),
        optimizer=str(optimizer),
        lr=float(chosen),
        passed=not failures,
        tolerance=tolerance,
        culprit=culprit,
        sentence=sentence,
        slopes=tuple(slopes),
    )


def _slopes(df: pd.DataFrame, axis: str, tolerance: float) -> list[Slope]:
    """Slopes in forward order, judged."""
    judged_readouts = set(df[(df.quantity == "update") & (df.role == "output")].module)
    around = {
        module
        for module in df.module.unique()
        if any(readout.startswith(f"{module}.") for readout in judged_readouts)
    }
    scales = df[axis].nunique()
    order = {module: i for i, module in enumerate(df[df.step == df.step.max()].module.unique())}
    slopes = []
    for key, cell in df.groupby(["module", "role", "step", "quantity"], sort=False):
        module, role, step, quantity = (str(part) for part in key)
        positive = cell[cell.rms > 0]
        if positive[axis].nunique() < scales:
            continue
        slope, lo, hi = _fit(np.log(positive[axis]), np.log(positive.rms))
        passed, proved = None, False
        hidden = _EXPERT.search(module) or (axis == "depth" and _INSIDE.search(module))
        if module not in around and not hidden:
            judged = slope
            # A router is a readout to its experts: its change holds the same random sums.
            readout = role == "output" or (axis == "width" and role == "router")
            if axis == "width" and readout and slope < -tolerance:
                judged = _slope_at_largest(positive[axis], positive.rms)
            passed = _judge(readout, quantity, judged, tolerance)
            proved = passed is False and (lo > tolerance or hi < -tolerance)
        slopes.append(Slope(module, role, int(step), quantity, slope, lo, hi, passed, proved))
    return sorted(slopes, key=lambda s: (s.step, order.get(s.module, -1), s.quantity))


def _judge(readout: bool, quantity: str, slope: float, tolerance: float) -> bool | None:
    if readout:
        if quantity == "delta":
            return bool(slope <= tolerance)
        return bool(abs(slope) <= tolerance) if quantity == "update" else None
    return bool(abs(slope) <= tolerance) if quantity == "delta" else None


def _slope_at_largest(widths: Any, rms: Any) -> float:
    """D log rms / d log width at the largest width, of rms^2 = limit^2 + random^2 / width."""
    m, square = np.asarray(widths, dtype=float), np.asarray(rms, dtype=float) ** 2
    # Dividing by the squares makes every point count by its relative error.
    (limit, random), _ = optimize.nnls(np.stack([1 / square, 1 / (m * square)], 1), np.ones(len(m)))
    random /= m.max()
    return float(-0.5 * random / (limit + random))


def _fit(x: Any, y: Any) -> tuple[float, float, float]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    fit = stats.linregress(x, y)
    if len(x) < 3:
        return float(fit.slope), float("-inf"), float("inf")
    half = stats.t.ppf(0.975, len(x) - 2) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)


def _cause(slopes: list[Slope], first: Slope, limit: float, axis: str) -> str:
    """What most likely made the first proved failure, from its own update and its output."""
    module = first.module
    own = {s.module: s for s in slopes if s.quantity == "update"}
    start = {s.module: s for s in slopes if s.quantity == "output" and s.step == 0}
    update, output = own.get(module), start.get(module)
    if update is not None and update.slope > limit:
        return (
            f"the learning rate of {module}.weight ({first.role}) does not fall fast enough with "
            f"{axis}: its own update grows like {axis}^{update.slope:+.2f}"
        )
    if update is not None and update.slope < -limit:
        return (
            f"the learning rate of {module}.weight ({first.role}) falls too fast with {axis}, or "
            f"its epsilon dominates: its own update moves like {axis}^{update.slope:+.2f}"
        )
    if axis == "width" and "att" in module.lower():
        return (
            "the attention logits, scaled by 1/sqrt(d_head) where 1/d_head is due (what goes in "
            "and the module's own update do not grow)"
        )
    if axis == "width" and first.role == "output" and first.slope > 0:
        return (
            "the readout's initial weights do not shrink with width (std 1/fan_in), so changed "
            "features add up in it"
        )
    if output is not None and abs(output.slope) > limit:
        return f"the init of {module}: its output at step 0 moves like {axis}^{output.slope:+.2f}"
    return "its input, or an operation inside it: its own weights behave"
