"""The judgement on a coordinate check: pass, fail or undecided, with the culprit and the cause.

Imports no torch, so that a report or a notebook can judge a table that was saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paramz.analysis.outcome import Outcome, require_outcome
from paramz.analysis.slopes import Slope, axis_of, judged_slopes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Verdict:
    """Whether a coordinate check passed, by what numbers, and if not, where and why.

    Attributes:
        parametrization: what was checked.
        optimizer: with which optimizer.
        lr: at which learning rate.
        outcome: ``"pass"`` where all judged slopes are within the tolerance, ``"fail"`` where the
            interval of one lies wholly beyond it, else ``"undecided"``.
        tolerance: the largest absolute slope that passes.
        culprit: the first failing module in forward order, None when passed.
        finding: the numbers that decided, for people, without the outcome.
        slopes: all slopes, in forward order.
    """

    parametrization: str
    optimizer: str
    lr: float
    outcome: Outcome
    tolerance: float
    culprit: str | None
    finding: str
    slopes: tuple[Slope, ...]

    def __post_init__(self) -> None:
        require_outcome(self.outcome)

    @property
    def passed(self) -> bool:
        """Whether the outcome is ``"pass"``."""
        return self.outcome == "pass"

    @property
    def sentence(self) -> str:
        """The outcome in capitals, followed by the finding."""
        return f"{self.outcome.upper()}: {self.finding}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, as written beside the table."""
        return asdict(self) | {"passed": self.passed, "sentence": self.sentence}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` gave, in this version or in one that wrote no ``outcome``.

        Fields that the data lacks are left empty.

        Raises:
            ValueError: the data has no outcome, or one that does not exist, and none can be
                inferred from ``passed`` and ``sentence``.
        """
        outcome, finding = _outcome_of(data)
        return cls(
            parametrization=str(data.get("parametrization", "")),
            optimizer=str(data.get("optimizer", "")),
            lr=float(data.get("lr", "nan")),
            outcome=outcome,
            tolerance=float(data.get("tolerance", "nan")),
            culprit=data.get("culprit"),
            finding=finding,
            slopes=tuple(_read_slope(slope) for slope in data.get("slopes", ())),
        )

    def save(self, df: pd.DataFrame, folder: str | Path, label: str) -> Path:
        """Write ``<label>.csv`` and ``<label>.json`` for ``paramz report``.

        Args:
            df: the table that was judged.
            folder: where to write, made if it does not exist.
            label: name of the two files.

        Returns:
            the path of the table.
        """
        directory = Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        table = directory / f"{label}.csv"
        df.to_csv(table, index=False)
        text = json.dumps(self.to_json(), indent=1)
        (directory / f"{label}.json").write_text(text + "\n", encoding="utf-8")
        return table


def _outcome_of(data: Mapping[str, Any]) -> tuple[Outcome, str]:
    """Outcome and finding of a saved verdict.

    Verdicts of before `Outcome` hold ``passed``, which is false for undecided ones, too, and a
    sentence whose first word tells the two apart. Nothing else may read a sentence.
    """
    if "outcome" in data:
        return require_outcome(data["outcome"]), str(data.get("finding", ""))
    if "passed" not in data or "sentence" not in data:
        raise ValueError(
            "this is no verdict of a coordinate check: it has no outcome, nor a sentence with "
            "passed, as older versions wrote; write it anew with paramz check --out"
        )
    sentence = str(data["sentence"])
    word, colon, rest = sentence.partition(": ")
    prefixed = bool(colon) and word in ("PASS", "FAIL", "UNDECIDED")
    finding = rest if prefixed else sentence
    if data["passed"]:
        return "pass", finding
    return ("undecided" if prefixed and word == "UNDECIDED" else "fail"), finding


def _read_slope(data: Mapping[str, Any]) -> Slope:
    known = {field.name for field in fields(Slope)}
    return Slope(**{"role": "", **{k: v for k, v in data.items() if k in known}})


def judge(df: pd.DataFrame, *, tolerance: float = 0.1, lr: float | None = None) -> Verdict:
    """Judge a coordinate check.

    Every module but readouts passes when the slope of its output's change (``delta``) is within the
    tolerance at every step. A readout (over width, routers count as readouts) passes when its
    change does not grow beyond the tolerance and the part made by its own update is flat at the
    largest width: its change contains random sums (the initial readout acting on changed features,
    features that the batch does not share) which shrink like width^-1/2 and are no failure. Where
    the update's slope is below -tolerance, its squares are fitted by ``limit^2 + random^2 / width``
    and that curve's slope at the largest width is judged: it is -1/2 where there is no limit, as
    when the learning rate falls too fast.

    Modules that output the same at all times (rotary tables) and modules around a readout, which
    repeat it, are not judged.

    Over depth the state after each block is judged, and what is outside the blocks. Modules inside
    a block are not: Depth-muP lets the parts made by single layers shrink, and since a block is a
    larger share of a shallow model, the middle of a block lies further along its depth than along
    that of a deep one. Modules inside one of a list of experts are not judged either: they see
    other tokens at every step.

    Args:
        df: as returned by `paramz.coord_check`, of one parametrization and optimizer.
        tolerance: the largest absolute slope that passes.
        lr: which learning rate to judge; the middle one if left out.

    Returns:
        the verdict with all slopes.

    Raises:
        ValueError: the table is empty or mixes parametrizations, lr is not in it, activations are
            not finite at every width, or there is no module that can be judged.
    """
    names = df[["parametrization", "optimizer"]].drop_duplicates()
    if len(names) != 1:
        raise ValueError(
            f"a verdict is on one parametrization and optimizer; the table has {len(names)}"
        )
    name, optimizer = (str(value) for value in names.iloc[0])
    lrs = sorted(df.lr.unique())
    chosen = lrs[(len(lrs) - 1) // 2] if lr is None else lr
    # A table read from CSV has the empty role of containers as a missing value.
    part = df[df.lr == chosen].fillna({"role": ""})
    if part.empty:
        raise ValueError(f"lr={lr} is not in the table; it has {lrs}")
    axis = axis_of(df)
    _require_finite(part, axis, chosen)
    slopes = judged_slopes(part, axis, tolerance)
    outcome, culprit, what = _decide(slopes, axis, tolerance)
    span = f"{axis} {part[axis].min()} to {part[axis].max()}, lr {chosen:.4g}"
    return Verdict(
        parametrization=name,
        optimizer=optimizer,
        lr=float(chosen),
        outcome=outcome,
        tolerance=tolerance,
        culprit=culprit,
        finding=f"{name} with {optimizer}, {span}: {what}",
        slopes=tuple(slopes),
    )


def _require_finite(df: pd.DataFrame, axis: str, lr: float) -> None:
    bad = df[~np.isfinite(df.rms)]
    if not bad.empty:
        first = bad.iloc[0]
        raise ValueError(
            f"activations of {first.module} are not finite at {axis} {first[axis]}, step "
            f"{first.step}, lr {lr:.4g}: the check diverged; lower lr"
        )


def _decide(
    slopes: Sequence[Slope], axis: str, tolerance: float
) -> tuple[Outcome, str | None, str]:
    """The outcome, the culprit (None for a pass) and the numbers that decided."""
    failures = [s for s in slopes if s.passed is False]
    if not failures:
        return "pass", None, _what_passed(slopes, tolerance)
    proved = [s for s in failures if s.proved]
    worst = (proved or failures)[0]
    what = (
        f"{worst.module} changes like {axis}^{worst.slope:+.2f} "
        f"[{worst.lo:+.2f}, {worst.hi:+.2f}] at step {worst.step}"
    )
    if proved:
        cause = _cause(slopes, worst, tolerance, axis)
        return "fail", worst.module, f"{what}, beyond ±{tolerance:g}. Likely cause: {cause}"
    return (
        "undecided",
        worst.module,
        f"{what}; the interval reaches into ±{tolerance:g}, so more seeds or a wider range must "
        "decide",
    )


def _what_passed(slopes: Sequence[Slope], tolerance: float) -> str:
    judged = [s for s in slopes if s.passed]
    if not judged:
        raise ValueError(
            "no module of this table can be judged: none has changes of its output above zero at "
            "every scale; check a model with trainable modules, after at least one update"
        )
    worst = max(judged, key=lambda s: abs(s.slope) if s.role != "output" else 0.0)
    return (
        f"all {len({s.module for s in judged})} judged modules within "
        f"±{tolerance:g}; the largest slope is {worst.slope:+.2f} "
        f"[{worst.lo:+.2f}, {worst.hi:+.2f}] ({worst.module}, step {worst.step})"
    )


def _cause(slopes: Sequence[Slope], first: Slope, limit: float, axis: str) -> str:
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
