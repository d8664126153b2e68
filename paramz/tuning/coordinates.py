"""The coordinate check as a step: measured where trials run, judged here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paramz.analysis.coordinates import Verdict, judge
from paramz.check.sweep import check_sweep, gather
from paramz.tuning.cost import Cost
from paramz.tuning.stage import Interrupted, Stages, Waiting

# The check's widths: the smallest proxy and three doublings.
_DOUBLINGS = (1, 2, 4, 8)
_MINUTES = 30.0
# Seeds of the check, and how many plain steps one of its trials is worth.
_SEEDS, _STEPS_WORTH = 3, 10


def checked(
    stages: Stages, task: str, scheme: str, optimizer: str, smallest: int, config: Mapping[str, Any]
) -> Verdict:
    """The verdict on the coordinates of the task, measured first where it was not yet.

    Args:
        stages: where the steps are.
        task: name of the task function.
        scheme: the parametrization.
        optimizer: its name.
        smallest: the smallest proxy's width.
        config: passed to the task function.

    Raises:
        Waiting: it is measured by a queue.
        Interrupted: a stop was requested.
        ValueError: it cannot be made.
    """
    wanted = check_sweep(
        task,
        minutes=_MINUTES,
        widths=check_widths(smallest),
        parametrization=scheme,
        optimizer=optimizer,
        seeds=_SEEDS,
        config=dict(config),
    )
    folder = stages.out / "sweep" / "coord"  # where the report of the sweep looks for checks
    label = f"{scheme}-{optimizer}"
    store = stages.store(f"sweep/coord/{label}")
    found = gather(wanted, store)
    if found is None:
        report = stages.launcher.submit(wanted, store, stages.options)
        for line in report.lines:
            stages.say(line)
        if stages.options.stop.requested:
            raise Interrupted("stopped in the check; the same command goes on from here")
        found = gather(wanted, store)
    if found is None:
        raise Waiting(f"the coordinate check waits for its trials (paramz watch {store.root})")
    verdict = judge(found)
    verdict.save(found, folder, label)
    return verdict


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
