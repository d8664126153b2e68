"""Which trials of a sweep have a job in Slurm's queue."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from paramz.slurm import queue
from paramz.slurm.order import keys_of
from paramz.sweeps.store.store import Store


def job_name(store: Store) -> str:
    """The name of a sweep's jobs: that of its directory, and a hash of the directory's path."""
    path = store.root.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def jobs_of(store: Store) -> list[queue.QueuedJob]:
    """The jobs of a sweep that are waiting or running.

    Raises:
        paramz.slurm.queue.SlurmError: the queue cannot be asked.
    """
    return queue.queued(job_name(store))


def trials_of(store: Store, jobs: Iterable[queue.QueuedJob]) -> frozenset[str]:
    """The keys of the trials that the given jobs of a sweep were given."""
    folder = store.root / "slurm" / "arrays"
    return frozenset(
        key for job in jobs for key in keys_of(folder / job.comment / f"{job.element}.json")
    )
