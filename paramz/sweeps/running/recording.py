"""Writing down how trials end: their results, their attempts, and a tally of a pool's trials."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from paramz.sweeps.running.messages import Ending
from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import Attempt
from paramz.sweeps.store.record import Record
from paramz.sweeps.store.store import Store

OnEvent = Callable[[str, str, str], None]
"""Called with ("start" | "end", key, status) as trials start and end."""

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
REMOVED = (
    "the directory of the trial was removed while it ran; a trial may delete what it has saved in "
    "its directory, but neither the directory nor its attempt files"
)
_RETRY_EVERY = 2.0  # seconds between attempts to write results at the end


@dataclass
class Tally:
    """How the trials of a pool ended.

    Attributes:
        saved: status by key of those whose result was written.
        busy: keys of those that another process is running.
        interrupted: keys of those that were stopped before their end.
        unsaved: keys of those that ended, and whose result could not be written to the disk.
        refused: keys of those that were not begun, because the disk did not take their attempt.
        waiting: keys of those that were not begun, because a stop was requested.
        stopped: whether a stop was requested.
    """

    saved: dict[str, str] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    interrupted: set[str] = field(default_factory=set)
    unsaved: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether every trial has a result."""
        return not self.left

    @property
    def left(self) -> int:
        """Number of trials without a result."""
        return len(self.busy | self.interrupted | self.unsaved | self.refused | self.waiting)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.saved | other.saved,
            self.busy | other.busy,
            self.interrupted | other.interrupted,
            self.unsaved | other.unsaved,
            self.refused | other.refused,
            self.waiting | other.waiting,
            self.stopped or other.stopped,
        )


class Recorder:
    """Writes the results of a pool's trials, and keeps those that a full disk does not take.

    Args:
        store: where the results are written.
        on_event: called as trials start and end.
    """

    def __init__(self, store: Store, on_event: OnEvent) -> None:
        self.tally = Tally()
        self._store = store
        self._on_event = on_event
        self._unwritten: list[tuple[Attempt, Record]] = []

    def started(self, key: str, attempt: Attempt) -> None:
        """Record that an attempt at a trial begins now."""
        attempt.begin()
        self._on_event("start", key, "")

    def interrupted(self, key: str, attempt: Attempt, why: str = "interrupted") -> None:
        """Record that an attempt has ended without a result."""
        attempt.end(why)
        self.tally.interrupted.add(key)
        self._on_event("end", key, "interrupted")

    def lost(self, key: str, attempt: Attempt) -> None:
        """Record that another process has taken over a trial."""
        attempt.end("taken over by another process, which saw no heartbeat")
        self.tally.busy.add(key)
        self._on_event("end", key, "interrupted")

    def finished(self, key: str, config: Config, attempt: Attempt, outcome: Ending) -> None:
        """Write the result of a trial, or record that the trial was interrupted."""
        if outcome["status"] == "interrupted":
            self.interrupted(key, attempt)
            return
        if attempt.removed() and outcome["error"] != REMOVED:
            outcome = failed(REMOVED, outcome["traceback"])
        record = _record(key, config, outcome, attempt.seconds(), attempt.number)
        self._write(attempt, record)

    def write_again(self) -> None:
        """Write the results that the disk did not take before, as far as it takes them now."""
        unwritten, self._unwritten = self._unwritten, []
        for attempt, record in unwritten:
            attempt.touch()
            self._write(attempt, record)

    def write_rest(self, patience: float) -> None:
        """Try to write what is left until it is written or `patience` seconds are over."""
        give_up = time.monotonic() + patience
        while self._unwritten:
            self.write_again()
            if not self._unwritten or time.monotonic() > give_up:
                break
            time.sleep(_RETRY_EVERY)
        self.tally.unsaved |= {record["key"] for _, record in self._unwritten}

    def _write(self, attempt: Attempt, record: Record) -> None:
        key, status = record["key"], record["status"]
        try:
            if attempt.superseded():
                self.lost(key, attempt)
                return
            if self._store.save(record):
                self.tally.saved[key] = status
                self._on_event("end", key, status)
            attempt.end(status)
        except OSError as error:
            if not disk_is_full(error):
                raise
            self._unwritten.append((attempt, record))


def disk_is_full(error: OSError) -> bool:
    """Whether an error says that the disk has no room or is away, which may pass."""
    return error.errno in _FULL_DISK


def failed(error: str, traceback: str | None = None) -> Ending:
    """The outcome of a trial that failed."""
    return {"status": "failed", "error": error, "traceback": traceback, "metrics": {}}


def failure(key: str, config: Config, error: str, seconds: float, attempts: int) -> Record:
    """The result of a trial that failed outside of its training function."""
    return _record(key, config, failed(error), seconds, attempts)


def _record(key: str, config: Config, outcome: Ending, seconds: float, attempts: int) -> Record:
    return {
        "format": 1,
        "key": key,
        **outcome,
        "config": config,
        "seconds": round(seconds, 3),
        "attempts": attempts,
        "finished": time.time(),
    }
