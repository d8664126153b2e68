"""The coordinate check as a step: measured where trials run, judged here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramz.analysis.coordinates import CheckDiverged, Verdict, judge
from paramz.check.jobs import Check
from paramz.check.script import gather_script, records_itself, script_sweep
from paramz.check.sweep import check_sweep, gather
from paramz.sweeps.spec.command import Command, Metrics, holes
from paramz.tuning.cost import Cost
from paramz.tuning.stage import Interrupted, Waiting
from paramz.tuning.work import Work

if TYPE_CHECKING:
    import pandas as pd

    from paramz.sweeps.spec.spec import Sweep
    from paramz.sweeps.store.store import Store

# The check's widths: the smallest proxy and three doublings.
_DOUBLINGS = (1, 2, 4, 8)
_MINUTES = 30.0
# Seeds of the check, and how many plain steps one of its trials is worth.
_SEEDS, _STEPS_WORTH = 3, 10
# Exponents are the same at every rate at which nothing diverges: where one is too high, lower ones
# are tried in turn.
_RATES = tuple(Check.lr / 8**times for times in range(4))


@dataclass(frozen=True)
class _Wanted:
    """A check that can be made, as a sweep, and how its table is read."""

    sweep: Sweep
    gather: Callable[[Sweep, Store], pd.DataFrame | None]


def can_check(work: Work) -> bool:
    """Whether there is a model to look into: a task, or a script that calls `paramz.record`."""
    return work.task_name is not None or _recording_words(work) is not None


def checked(work: Work, smallest: int) -> Verdict:
    """The verdict on the coordinates of what is tuned, at the first rate that does not diverge.

    Args:
        work: what is tuned; `can_check` has said that it can be.
        smallest: the smallest proxy's width.

    Raises:
        Waiting: it is measured by a queue.
        Interrupted: a stop was requested.
        CheckDiverged: it diverges at every rate.
        ValueError: it cannot be made.
    """
    for lr in _RATES[:-1]:
        try:
            return _checked_at(lr, work, smallest)
        except CheckDiverged as error:
            work.stages.say(f"{error} (it is made again at lr {lr / 8:.4g})")
    return _checked_at(_RATES[-1], work, smallest)


def _checked_at(lr: float, work: Work, smallest: int) -> Verdict:
    """The verdict at one learning rate, measured first where it was not yet."""
    stages, wanted = work.stages, _wanted(work, smallest, lr)
    folder = stages.out / "sweep" / "coord"  # where the report of the sweep looks for checks
    label = f"{work.scheme}-{work.optimizer}"
    store = stages.store(f"sweep/coord/{label}")
    found = wanted.gather(wanted.sweep, store)
    if found is None:
        report = stages.launcher.submit(wanted.sweep, store, stages.options)
        for line in report.lines:
            stages.say(line)
        if stages.options.stop.requested:
            raise Interrupted("stopped in the check; the same command goes on from here")
        found = wanted.gather(wanted.sweep, store)
    if found is None:
        raise Waiting(f"the coordinate check waits for its trials (paramz watch {store.root})")
    verdict = judge(found)
    verdict.save(found, folder, label)
    return verdict


def _wanted(work: Work, smallest: int, lr: float) -> _Wanted:
    config = {k: v for k, v in work.config.items() if k not in ("width", work.setting.hp)}
    asked: dict[str, Any] = {
        "widths": check_widths(smallest),
        "parametrization": work.scheme,
        "optimizer": work.optimizer,
        "lr": lr,
        "seeds": _SEEDS,
        "config": config,
    }
    if work.task_name is not None:
        return _Wanted(check_sweep(work.task_name, minutes=_MINUTES, **asked), gather)
    words = _recording_words(work)
    assert words is not None
    if "seed" not in set(holes(words)):
        asked["seeds"] = 1
    folder = work.setting.source.folder
    sweep = script_sweep(words, Check(**asked), folder=folder, minutes=_MINUTES)
    return _Wanted(sweep, gather_script)


def _recording_words(work: Work) -> list[str] | None:
    """The words of a command whose script calls `paramz.record`; None for any other."""
    given = work.setting.source.fields.get("command")
    if given is None or work.setting.hp != "lr":
        return None
    words = shlex.split(given) if isinstance(given, str) else [str(word) for word in given]
    metrics = Metrics(pattern="(?P<loss>.)")  # it has no part in this question
    command = Command(words=tuple(words), metrics=metrics, folder=str(work.setting.source.folder))
    return words if records_itself(command) else None


def check_seconds(smallest: int, cost: Cost) -> float:
    """What the check takes, about: of each of its trials a few steps, with all that they record."""
    widths = check_widths(smallest)
    return _SEEDS * sum(cost.trial(width, _STEPS_WORTH) for width in widths)


def check_widths(smallest: int) -> Sequence[int]:
    """The widths of the check.

    >>> check_widths(32)
    [32, 64, 128, 256]
    """
    return [smallest * times for times in _DOUBLINGS]
