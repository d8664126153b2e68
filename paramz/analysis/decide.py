"""The verdict on one group: three outcomes by equivalence, and what would decide an open one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from paramz.analysis.answer import Answer
from paramz.analysis.curves import Regret
from paramz.analysis.evidence import Evidence, notes_on
from paramz.analysis.outcome import Outcome, require_outcome
from paramz.analysis.runs import led

# A hyperparameter transfers if its best value moves by less than this, in octaves per doubling of
# the scale: over ten doublings by a factor of two.
TOLERANCE = 0.1
# With more than this many times the seeds, other runs are the better advice.
_MOST_TIMES = 16
# Eight times the largest scale is as much as anybody adds to decide a sweep.
_MOST_DOUBLINGS = 3
# By how many octaves a grid should be extended where nothing says where the optimum is.
_FARTHER = 2.0

_TRANSFERS: dict[Outcome, bool | None] = {"pass": True, "fail": False, "undecided": None}


@dataclass(frozen=True)
class Verdict:
    """Whether the hyperparameter transfers within one group of runs.

    Attributes:
        outcome: ``"pass"`` where it transfers, ``"fail"`` where it does not, ``"undecided"`` where
            the runs do not show it.
        sentence: the finding with its numbers, for people.
        answer: the value to use; None where the group was not judged.
        tolerance: the drift that counts as transfer, in octaves per doubling.
        to_decide: what would decide an open case: runs to add, in numbers.
    """

    outcome: Outcome
    sentence: str
    answer: Answer | None = None
    tolerance: float = TOLERANCE
    to_decide: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_outcome(self.outcome)

    @property
    def transfers(self) -> bool | None:
        """The outcome as True or False; None where it is undecided."""
        return _TRANSFERS[self.outcome]

    @property
    def text(self) -> str:
        """The sentence and the answer."""
        return f"{self.sentence} {self.answer.sentence}" if self.answer else self.sentence

    def __str__(self) -> str:
        return self.text


def decide(known: Evidence, tolerance: float = TOLERANCE) -> Verdict:
    """The verdict on a group.

    It passes only if the whole 95 % interval of the drift lies within the tolerance, and the
    smallest scale's best value works at the largest. It fails only if the whole interval lies
    outside, or if that value surely diverges there or loses what growing the model gains.

    Args:
        known: what was measured.
        tolerance: in octaves per doubling.

    Returns:
        the verdict with its sentence, the answer, and what would decide it.
    """
    drift = known.line.drift
    small, large = known.curves[0], known.curves[-1]
    failed = (known.cost.status in ("lost", "diverged") and known.cost.sure) or _died(known)
    limit = f"tolerance {tolerance:g} octave per doubling"
    outcome: Outcome = "undecided"
    to_decide: tuple[str, ...] = ()
    if failed or drift.lo > tolerance or drift.hi < -tolerance:
        outcome, answer = "fail", f"it does not transfer ({limit})"
    elif (
        not any(known.partly.values())
        and known.cost.status == "ok"
        and -tolerance < drift.lo
        and drift.hi < tolerance
    ):
        outcome, answer = "pass", f"it transfers ({limit})"
    else:
        to_decide = tuple(_to_decide(known, tolerance))
        answer = f"undecided ({limit}); to decide it, {', or '.join(to_decide)}"
    moves = led(
        known.name,
        f"best {known.hp} moves {_slope(known)} from {small.scale:g} to {large.scale:g}",
    )
    there = (
        f"{known.scale} {large.scale:g} at the {known.hp} tuned at {known.scale} {small.scale:g}"
    )
    sentence = f"{moves}, and {there} {_what_it_costs(known.cost, large.level)}: {answer}."
    notes = "".join(f" {note}." for note in notes_on(known))
    verdict = Verdict(outcome, sentence + notes, None, tolerance, to_decide)
    return replace(verdict, answer=_answer(known, outcome))


def _slope(known: Evidence) -> str:
    drift = known.line.drift
    per = f"octave per doubling of {known.scale}"
    if math.isfinite(drift.slope):
        interval = f"{_signed(drift.lo)} to {_signed(drift.hi)}"
        return f"{_signed(drift.slope)} {per} (95% {interval})"
    if math.isfinite(drift.lo):
        return f"by {_signed(drift.lo)} {per} or more"
    if math.isfinite(drift.hi):
        return f"by {_signed(drift.hi)} {per} or less"
    return "by an amount that the grid does not show"


def _signed(value: float) -> str:
    """Two decimals with a sign, that of zero being plus."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("inf", "∞")


def _amount(loss: float, level: float) -> str:
    """A loss with two digits; zero where it is less than a ten-thousandth of the whole."""
    return f"{loss:.2g}" if abs(loss) > 1e-4 * abs(level) else "0"


def _died(known: Evidence) -> bool:
    """Whether a larger scale whose grid holds the tuned value diverged at every value."""
    tuned = known.curves[0].optimum
    return any(
        scale > known.curves[-1].scale and low <= tuned.x <= high
        for scale, (low, high) in known.dead.items()
        if not known.partly.get(scale)  # a seed without any loss there may not have run
    )


def _what_it_costs(cost: Regret, best: float) -> str:
    gain = f", {cost.share:.0%} of the gain" if np.isfinite(cost.share) else ""
    if cost.status == "ok":
        lo, mid = _amount(cost.lo, best), _amount(cost.regret, best)
        hi = _amount(cost.hi, best) if math.isfinite(cost.hi) else "divergence"
        return f"costs {mid} in loss (95% {lo} to {hi}{gain})"
    if cost.status == "lost":
        return f"fails: loss {cost.loss:.3g} against {best:.3g} at its own best"
    if cost.status == "diverged":
        return "diverges"
    return "was not run: it lies outside the grid there"


def _to_decide(known: Evidence, tolerance: float) -> Iterator[str]:
    """Runs that would decide an open case, each alone."""
    if lost := [f"{s:g}" for s, seeds in known.partly.items() if seeds]:
        yield f"run the seeds without a loss at {known.scale} {', '.join(lost)}, or leave them out"
        return
    if known.cost.status == "out of grid":
        value = 2.0 ** known.curves[0].optimum.x
        yield f"run {known.scale} {known.curves[-1].scale:g} at {known.hp} = {value:.2g}"
    wider = list(_wider(known))
    if wider:
        yield " and ".join(wider)
        return
    rare = [f"{c.scale:g}" for c in known.curves if c.optimum.interval == "grid"]
    if rare:
        yield f"add values of {known.hp} around the best at {known.scale} {', '.join(rare)}"
    broad = [f"{c.scale:g}" for c in known.curves if c.optimum.flag in ("plateau", "two minima")]
    if broad:
        yield f"add seeds at {known.scale} {', '.join(broad)}, where the optimum is not singled out"
    drift = known.line.drift
    times = _times(drift.slope, drift.lo, drift.hi, tolerance)
    if times is None:
        yield f"reuse it: the drift is inside, but {known.hp} may fail at the largest {known.scale}"
        return
    seeds = min(c.seeds for c in known.curves)
    if math.isinf(times):
        few = ", ".join(f"{c.scale:g}" for c in known.curves if c.seeds == seeds)
        yield f"add seeds at {known.scale} {few}: with {seeds} there the drift has no interval"
        return
    total = math.ceil(seeds * times**2)
    if times**2 <= _MOST_TIMES and drift.excess < 2:
        more = total - seeds
        yield f"add {more} seed{'s' if more > 1 else ''} at every {known.scale} ({total} in all)"
    widths = _more_scales(known, times)
    if widths:
        yield f"add {known.scale} {', '.join(f'{w:g}' for w in widths)} with as many runs"
    elif times**2 > _MOST_TIMES or drift.excess >= 2:
        needed = f"{times**2:.0f}" if times**2 < 1000 else "more than 1000"
        yield (
            f"look closer than this sweep can: it needs {needed} times the runs, because the drift "
            "is near the tolerance"
        )


def _times(slope: float, lo: float, hi: float, tolerance: float) -> float | None:
    """How many times narrower the interval must be; None if it decides already."""
    if abs(slope) < tolerance:
        factor = max((hi - slope) / (tolerance - slope), (slope - lo) / (slope + tolerance))
    elif slope > 0:
        factor = (slope - lo) / max(slope - tolerance, 1e-3)
    else:
        factor = (hi - slope) / max(-slope - tolerance, 1e-3)
    return float(factor) if factor > 1 else None


def _more_scales(known: Evidence, times: float) -> list[float]:
    """The fewest further doublings of the scale that narrow the interval so many times."""
    u = np.log2([c.scale for c in known.curves])
    before = np.sum((u - u.mean()) ** 2)
    added = u
    for _ in range(_MOST_DOUBLINGS):
        added = np.append(added, added[-1] + 1)
        if np.sum((added - added.mean()) ** 2) >= times**2 * before:
            return [float(2.0**v) for v in added[len(u) :]]
    return []


def _wider(known: Evidence) -> Iterator[str]:
    """Where the grid must go on, and how far."""
    where: dict[str, list[str]] = {}
    for curve in known.curves:
        optimum = curve.optimum
        for open_, end, sign, words in (
            (math.isinf(optimum.hi), curve.x[-1], 1, "up to"),
            (math.isinf(optimum.lo), curve.x[0], -1, "down to"),
        ):
            if not open_:
                continue
            beyond = known.line.at(curve.scale)[0]
            # One octave beyond where the others say that the optimum is.
            far = max(_FARTHER, sign * (beyond - end) + 1) if math.isfinite(beyond) else _FARTHER
            value = f"{words} {known.hp} = {2.0 ** (end + sign * math.ceil(far)):.2g} at least"
            where.setdefault(value, []).append(f"{curve.scale:g}")
    for value, scales in where.items():
        yield f"extend the grid at {known.scale} {', '.join(scales)} {value}"


def _answer(known: Evidence, outcome: Outcome) -> Answer:
    """The value for the largest scale: of the line where it transfers, else that scale's own."""
    large = known.curves[-1]
    x, lo, hi = large.optimum.x, large.optimum.lo, large.optimum.hi
    tuned: tuple[float, ...] = (large.scale,)
    if outcome == "pass":
        x, lo, hi = known.line.at(large.scale)
        tuned = tuple(c.scale for c in known.curves)
    return Answer(
        known.hp,
        2.0**x,
        2.0**lo,
        2.0**hi,
        known.scale,
        large.scale,
        outcome == "pass",
        tuned,
        known.steps,
        known.batch,
    )
