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

from paramz.analysis.causes import cause_of, departing, what_explains_a_fall, what_is_not_flat
from paramz.analysis.faint import excuse_faint, excused_in_words, faded_in_words
from paramz.analysis.outcome import Outcome, require_outcome
from paramz.analysis.slopes import NEXT, Slope, axis_of, judged_slopes

if TYPE_CHECKING:
    import pandas as pd


class CheckDiverged(ValueError):
    """Updates of a check were so large that activations are not finite: a lower lr is needed."""


@dataclass(frozen=True)
class Verdict:
    """Whether a coordinate check passed, by what numbers, and if not, where and why.

    Attributes:
        parametrization: what was checked.
        optimizer: with which optimizer.
        lr: at which learning rate.
        outcome: ``"pass"`` where the interval of every judged slope reaches into the tolerance and
            excludes the next exponents (+-1/2), ``"fail"`` where that of one lies beyond +-1/4,
            else ``"undecided"``.
        tolerance: the largest absolute slope that is taken to be flat.
        culprit: the module that made it fail, or that is undecided; None when passed.
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

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"<Verdict {self.sentence}>"

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

    Over width, theory makes three claims on every module, all of them at the largest widths: its
    output has the same size before training, its own update moves it equally far, and so does all
    that changes in it. The fit (`paramz.analysis.slopes.local_slope`) takes off the random part
    that a finite width adds. A slope passes where its interval reaches into the tolerance and
    excludes the next exponents that theory could give (+-1/2), fails where the interval lies beyond
    +-1/4, nearer to one of those, and is undecided otherwise. A fall also passes where its interval
    lies above -1/4: what shrinks towards a limit may do so slowly, and nothing grows like that.

    What is exempt: a module after which nothing grows (a readout and what follows it), and a
    router, which may start as one, may shrink before training and in what is handed on to it, for
    these are random sums of the initial weights. An update may shrink where its ``aligned`` part,
    in which the rows of the batch do not cancel, keeps its size. What comes out of an inward map,
    which starts like a readout, may shrink (`paramz.analysis.faint`), and so may an update that
    keeps its size in the second run, where such maps start at zero. What a latent one puts out is
    judged behind the norm that follows it. Modules that output the same at all times (rotary
    tables) have no slope, and modules inside one of a list of experts see other tokens at every
    step: not judged.

    Over depth and experts the change is judged, over depth that of the state after each block and
    of what is outside the blocks: since a block is a larger share of a shallow model, the middle of
    a block lies further along its depth than along that of a deep one. No module's own update may
    grow. It may shrink, as those of Depth-muP's layers do, but not over depth under CompleteP: this
    scheme is there to keep all layers learning. An update whose interval reaches to both sides of
    +-1/4 passes there, since a single layer's is noisy under SGD.

    Args:
        df: as returned by `paramz.coord_check`, of one parametrization and optimizer.
        tolerance: the largest absolute slope that is taken to be flat.
        lr: which learning rate to judge; the middle one if left out.

    Returns:
        the verdict with all slopes.

    Raises:
        ValueError: the table is empty, mixes parametrizations or has one scale, lr is not in it,
            activations are not finite before any update, or there is no module that can be judged.
        CheckDiverged: they are not finite after an update.
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
    if part[axis].nunique() < 2:
        raise ValueError(
            f"the table has the one {axis} {part[axis].iloc[0]}: a slope needs at least two"
        )
    _require_finite(part, axis, chosen)
    slopes = judged_slopes(part, axis, tolerance)
    if axis == "width":
        slopes = excuse_faint(slopes, tolerance)
    seeds = part.seed.nunique() if "seed" in part.columns else 1
    outcome, culprit, what = _decide(slopes, axis, tolerance, seeds, part[axis].nunique())
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
    if bad.empty:
        return
    at_first = bad[bad.step == 0]
    first = (bad if at_first.empty else at_first).iloc[0]
    found = (
        f"activations of {first.module} are not finite at {axis} {first[axis]}, step {first.step}"
    )
    if first.step == 0:
        raise ValueError(
            f"{found}: before any update, so that no lr would help; look for what the model "
            "computes from its initial values"
        )
    raise CheckDiverged(f"{found}, lr {lr:.4g}: the check diverged; lower lr")


def _decide(
    slopes: Sequence[Slope], axis: str, tolerance: float, seeds: int, sizes: int
) -> tuple[Outcome, str | None, str]:
    """The outcome, the culprit (None for a pass) and the numbers that decided."""
    failures = [s for s in slopes if s.passed is False]
    alone = _ALONE.get(sizes, "") if seeds == 1 else ""
    if not failures:
        return "pass", None, _what_passed(slopes, axis, tolerance) + f"; {alone}" * bool(alone)
    if any(s.proved for s in failures):
        cause = cause_of(slopes, axis)
        return "fail", cause.slope.module, f"{in_words(cause.slope, axis)}. Cause: {cause.text}"
    worst = departing(slopes, axis)
    assert worst is not None  # there are failures
    advice = alone or _decides(worst, seeds, axis)
    return "undecided", worst.module, f"{in_words(worst, axis)}; {advice}"


# What is said of one seed, by the number of sizes; of more sizes the interval tells.
_ALONE = {
    2: "one seed of two sizes gives no interval, only slopes: take three seeds",
    3: "one seed of three sizes gives hardly an interval: take three seeds",
}
# What a quantity is called in a sentence.
_CALLED = {
    "output": "the output of {} before training goes like {}",
    "delta": "{} changes like {} at step {step}",
    "update": "the own update of {} goes like {} at step {step}",
    "reach": "the largest attention logits of {} go like {}",
}


def in_words(s: Slope, axis: str) -> str:
    """What a judged slope says, as the verdict says it."""
    interval = f" [{s.lo:+.2f}, {s.hi:+.2f}]" if np.isfinite(s.hi - s.lo) else ""
    goes = f"{axis}^{s.slope:+.2f}{interval}"
    return _CALLED[s.quantity].format(s.module, goes, step=s.step)


# Where the random parts of finite sums are smaller, by the axis of the check.
_LARGER = {"width": "widths twice as large", "rank": "ranks twice as large"}
_WIDER = "a base_width twice as large"


def _decides(worst: Slope, seeds: int, axis: str) -> str:
    """What would decide an open case."""
    larger = _LARGER.get(axis, _WIDER)
    half = (worst.hi - worst.lo) / 2
    # To fail, the interval has to leave the half-way point; to pass, the next exponent.
    size = abs(worst.slope)
    room = size - NEXT / 2 if size > NEXT / 2 else NEXT - size
    needed = int(np.ceil(seeds * (half / max(room, 0.02)) ** 2))
    if half > 0.05 and needed > seeds:
        return (
            f"the interval reaches to both sides of {NEXT / 2:g}, halfway to the next exponent: "
            f"about {needed} seeds instead of {seeds} would tell, or {larger}"
        )
    return (
        "that is between flat and the next exponent, and more seeds will not tell: take "
        f"{larger}, where the effect of a finite size fades and a wrong exponent stays"
    )


def _what_passed(slopes: Sequence[Slope], axis: str, tolerance: float) -> str:
    judged = [s for s in slopes if s.passed]
    if not any(s.quantity in ("delta", "update") for s in judged):
        raise ValueError(
            "no module of this table can be judged: none has changes of its output above zero at "
            "every scale; check a model with trainable modules, after an update that moves them "
            "(of an optimizer that holds them, and whose first steps are not of size zero)"
        )
    strict = [s for s in judged if not s.last and s.quantity != "reach"] or judged
    worst = max(strict, key=lambda s: abs(s.slope))
    exempt = len({s.module for s in judged if s.last})
    readouts = (
        f"; {exempt} of them may shrink with {axis}, as what only reads out does"
        if exempt and strict is not judged
        else ""
    )
    modules = len({s.module for s in judged})
    return (
        f"all {modules} judged modules are flat within ±{tolerance:g} at the largest sizes, or not "
        f"distinguishable from it{excused_in_words(strict, axis)}"
        f"{what_is_not_flat(strict, axis, tolerance)}; the largest slope: "
        f"{in_words(worst, axis)}{readouts}"
        f"{faded_in_words(slopes, tolerance)}{what_explains_a_fall(slopes, tolerance)}"
    )
