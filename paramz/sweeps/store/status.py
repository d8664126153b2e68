"""How far a sweep has come, from its files and from the trials that a launcher has queued."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from paramz.sweeps.store.attempt import holder
from paramz.sweeps.store.record import STATUSES
from paramz.sweeps.store.store import Store

STATES = (*STATUSES, "running", "queued", "interrupted", "waiting")
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
    wanted = store.wanted()
    records = list(store.records())
    asked = {record["key"]: {} for record in records} if wanted is None else wanted
    counts = Counter(dict.fromkeys(STATES, 0))
    codes: Counter[str] = Counter()
    kinds: dict[str, list[Any]] = {}
    finishes = []
    missing = dict.fromkeys(asked)
    for record in records:
        if record["key"] not in asked:
            continue
        if source := (record.get("code") or {}).get("source"):
            codes[source] += 1
        del missing[record["key"]]
        counts[record["status"]] += 1
        finishes.append(record.get("finished", 0.0))
        if record["status"] == "failed":
            kind = _kind(record["error"] or "")
            kinds.setdefault(kind, [record["error"], 0, record["key"]])[1] += 1
    started = _names(store.root / "trials")
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
    ordered = sorted(kinds.values(), key=lambda kind: -kind[1])
    return Status(
        directory=str(store.root),
        trials=len(asked),
        counts=dict(counts),
        failures=tuple(Kind(*kind) for kind in ordered),
        running=tuple(running),
        eta=_eta(finishes, len(missing)) if running or counts["queued"] else None,
        quarantined=len(_names(store.root / "quarantine")),
        unasked=sum(record["key"] not in asked for record in records),
        known=wanted is not None,
        codes=dict(codes),
    )


def _kind(error: str) -> str:
    return re.sub(r"\d+", "#", error)[:120]


def _eta(finishes: list[float], left: int) -> float | None:
    now = time.time()
    recent = [moment for moment in finishes if now - moment < _WINDOW]
    if len(recent) < 2:
        return None
    return left * (now - min(recent)) / (len(recent) - 1)


def _names(folder: os.PathLike[str]) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
