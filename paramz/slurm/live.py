"""Which trials of a sweep have a job in Slurm's queue."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from paramz.slurm import queue
from paramz.slurm.order import keys_of
from paramz.sweeps.running.launcher import LaunchError
from paramz.sweeps.store.store import Store

_LONGEST = 64  # characters of a directory's name that its jobs keep
_ODD = re.compile(r"[%\\\x00-\x1f\x7f]")


def job_name(store: Store) -> str:
    """The name of a sweep's jobs: that of its directory, and a hash of the directory's path.

    Of the first, only letters, digits, points, dashes and underlines are kept, because squeue reads
    a comma as the end of a name, and sbatch expands ``%``.
    """
    path = store.root.resolve()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:_LONGEST].strip("-")
    return f"{plain}-{_hash(path)}".strip("-")


def log_folder(store: Store) -> Path:
    """The folder of the logs of a sweep's jobs, by a path that Slurm and submitit read as it is.

    They expand ``%`` in the names of files, and Slurm reads backslashes in its own way. If the path
    of the sweep has such characters, a link ``.paramz-<hash>`` to it is made in the nearest folder
    above whose path has none.

    Raises:
        paramz.sweeps.running.launcher.LaunchError: there may no link be made.
    """
    path = store.root.resolve()
    plain = path
    while _ODD.search(str(plain)):
        plain = plain.parent
    if plain != path:
        link = plain / f".paramz-{_hash(path)}"
        try:
            if not link.is_symlink():
                link.symlink_to(path)
        except OSError as error:
            raise LaunchError(
                f"{path}: Slurm does not take % and backslashes in paths as they are, and no link "
                f"can be made in {plain} ({error.strerror}); choose another directory (--out)"
            ) from None
        path = link
    return path / "slurm" / "logs"


def _hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


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
