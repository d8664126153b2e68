"""How far a sweep has come, from its files and from the trials that a launcher has queued."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from paramz.sweeps.store.attempt import holder
from paramz.sweeps.store.record import STATUSES
from paramz.sweeps.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from paramz.sweeps.store.index import Index

STATES = (*STATUSES, "running", "queued", "interrupted", "waiting")
_SHOWN = 50  # kinds of failures whose example is read from its file
_WINDOW = 900.0  # seconds before now over which the rate of finishing trials is measured


@dataclass(frozen=True)
class Kind:
    """Failed trials whose error messages differ in numbers only.

    Attributes:
        error: one of the messages.
        count: number of the trials.
        example: the key of the trial that the message is from.
    """

    error: str
    count: int
    example: str


@dataclass(frozen=True)
class Status:
    """How far a sweep has come.

    Attributes:
        directory: the directory of the sweep.
        trials: number of trials that the sweep asks for.
        counts: number of trials in each state: the statuses of results, "running" (a process is
            at work on them), "queued" (a job that waits or has just started will run them),
            "interrupted" (begun, but no process is at work on them) and "waiting" (never begun).
            A rerun starts the interrupted and the waiting ones.
        failures: the failed trials by kind, the most frequent first.
        running: key, host, job and start of the running trials.
        eta: seconds until all are finished, at the rate of the last quarter of an hour; None if
            that is not known.
        quarantined: number of broken files that were moved to ``quarantine/``.
        unasked: number of results that the sweep no longer asks for, such as those of a value that
            was taken from an axis. They are in none of the other numbers, nor in tables.
        known: whether ``trials.jsonl`` says what the sweep asks for. If it is missing, every
            result counts as asked for.
        codes: number of results of each code, by the hash of its sources.
    """

    directory: str
    trials: int
    counts: dict[str, int]
    failures: tuple[Kind, ...]
    running: tuple[dict[str, Any], ...]
    eta: float | None
    quarantined: int
    unasked: int
    known: bool
    codes: dict[str, int]

    @property
    def left(self) -> int:
        """Number of trials without a result."""
        return self.trials - sum(self.counts[name] for name in STATUSES)

    def to_dict(self) -> dict[str, Any]:
        """The status as plain data."""
        return asdict(self) | {"left": self.left}


def status(store: Store, queued: Collection[str] = ()) -> Status:
    """Read how far a sweep has come.

    Args:
        store: the directory of the sweep.
        queued: keys of the trials that queued or running jobs will run.

    Warns:
        UserWarning: a result file is broken; it is moved to ``quarantine/``.
    """
    from paramz.sweeps.store.asked import asked_keys  # numpy takes a while to import
    from paramz.sweeps.store.index import read_index
    from paramz.sweeps.store.keys import among

    wanted = asked_keys(store)
    index = read_index(store.root, store.read)
    asked = index.rows["key"] if wanted is None else wanted
    rows = index.rows[among(index.rows["key"], asked)]
    counts = Counter(dict.fromkeys(STATES, 0))
    for number, name in enumerate(STATUSES):
        counts[name] = int((rows["status"] == number).sum())
    missing = [key.decode() for key in asked[~among(asked, rows["key"])]]
    started = _names(store.root / "trials") if missing else set()
    running = []
    for key in missing:
        live = holder(store.trial(key)) if key in started else None
        if live is not None:
            running.append({"key": key} | {k: live.get(k) for k in ("host", "job", "started")})
            counts["running"] += 1
        elif key in queued:
            counts["queued"] += 1
        else:
            counts["interrupted" if key in started else "waiting"] += 1
    codes = Counter(rows["source"].tolist())
    return Status(
        directory=str(store.root),
        trials=len(asked),
        counts=dict(counts),
        failures=tuple(_failures(store, index, rows)),
        running=tuple(running),
        eta=_eta(rows["finished"], len(missing)) if running or counts["queued"] else None,
        quarantined=len(_names(store.root / "quarantine")),
        unasked=len(index.rows) - len(rows),
        known=wanted is not None,
        codes={index.sources[n]: count for n, count in codes.items() if index.sources[n]},
    )


def _failures(store: Store, index: Index, rows: NDArray[Any]) -> list[Kind]:
    """The failed trials by kind, with the message of the first of each."""
    failed = rows[rows["status"] == STATUSES.index("failed")]
    found: list[Kind] = []
    for number, count in Counter(failed["kind"].tolist()).most_common():
        key = failed["key"][failed["kind"] == number][0].decode()
        record = store.read(key) if len(found) < _SHOWN else None
        found.append(Kind((record or {}).get("error") or index.kinds[number], count, key))
    return found


def _eta(finished: NDArray[Any], left: int) -> float | None:
    now = time.time()
    recent = finished[now - finished < _WINDOW]
    if len(recent) < 2:
        return None
    return float(left * (now - recent.min()) / (len(recent) - 1))


def _names(folder: os.PathLike[str]) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
