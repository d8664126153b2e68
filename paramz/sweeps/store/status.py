"""How a sweep stands, from its files; the queue of a cluster may add which trials it holds."""

import os
import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from paramz.sweeps.store.attempt import holder
from paramz.sweeps.store.store import STATUSES, Store

STATES = (*STATUSES, "running", "queued", "interrupted", "waiting")
_WINDOW = 900.0  # seconds over which the pace of finishing is measured


@dataclass(frozen=True)
class Kind:
    """Failures with the same message, numbers aside."""

    error: str
    count: int
    example: str


@dataclass(frozen=True)
class Status:
    """How a sweep stands.

    Attributes:
        directory: The directory of the sweep.
        trials: Trials asked for.
        counts: Trials by state: those of results, "running" (an attempt lives), "queued" (a job
            waits or is about to start them), "interrupted" (begun, nobody is at it), "waiting"
            (never begun). The last two are what a rerun starts.
        failures: Failed trials by kind, the most frequent first.
        running: Key, host, job and starting time of running trials.
        eta: Seconds to the end at the pace of the last quarter of an hour, None if unknown.
        quarantined: Broken files that were put aside.
    """

    directory: str
    trials: int
    counts: dict[str, int]
    failures: tuple[Kind, ...]
    running: tuple[dict[str, Any], ...]
    eta: float | None
    quarantined: int

    @property
    def left(self) -> int:
        """Trials without a result."""
        return self.trials - sum(self.counts[name] for name in STATUSES)

    def to_dict(self) -> dict[str, Any]:
        """The status as plain data."""
        return asdict(self) | {"left": self.left}


def status(store: Store, queued: Collection[str] = ()) -> Status:
    """Read how a sweep stands.

    Args:
        store: The sweep.
        queued: Keys of the trials that a cluster's queue sees to.

    Warns:
        UserWarning: For every broken result file, which is moved to `quarantine/`.
    """
    asked = store.trials()
    counts = Counter(dict.fromkeys(STATES, 0))
    kinds: dict[str, list[Any]] = {}
    finishes = []
    missing = dict.fromkeys(asked)
    for record in store.records():
        if record["key"] not in asked:
            continue
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
