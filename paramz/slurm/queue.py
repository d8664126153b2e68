"""Asking Slurm through its commands.

The state of jobs comes from one call of squeue. The accounting (sacct) is never asked for it: it
lags behind and may be absent.
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from paramz.sweeps.running.launcher import LaunchError

_FORMAT = "%i|%K|%T|%k"  # id, index in the array, state, comment
_TIMEOUT = 60  # seconds


class SlurmError(LaunchError):
    """A Slurm command is missing, failed, or did not answer."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or an element of an array, that squeue lists.

    Attributes:
        job: its id, ``123`` or ``123_4``.
        element: its index in the array; 0 if it is in none.
        state: PENDING, RUNNING, SUSPENDED ...
        comment: the name of the array's orders (`paramz.slurm.submission`).
    """

    job: str
    element: int
    state: str
    comment: str


def queued(name: str) -> list[QueuedJob]:
    """Every job with this name, of any user, that is waiting or running.

    Raises:
        SlurmError: squeue is missing, or the controller does not answer.
    """
    text = _call(
        ["squeue", "--noheader", "--array", "--all", f"--name={name}", f"--format={_FORMAT}"]
    )
    jobs = []
    for line in text.splitlines():
        job, element, state, comment = line.split("|", 3)
        if state == "COMPLETING":  # the job has ended and is only being cleaned up
            continue
        index = int(element) if element.isdigit() else 0
        jobs.append(QueuedJob(job, index, state, comment.strip()))
    return jobs


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs by id.

    Raises:
        SlurmError: scancel is missing or fails.
    """
    ids = sorted({job.partition("_")[0] for job in jobs})
    for i in range(0, len(ids), 100):
        _call(["scancel", *ids[i : i + 100]])


def max_array_size() -> int | None:
    """How many jobs the cluster allows in an array; None if it cannot be asked."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]), re.M)
    except SlurmError:
        return None
    return int(found[1]) if found else None


def max_submitted(account: str | None = None, qos: str | None = None) -> int | None:
    """How many jobs, elements of arrays included, this user may have in the queue.

    Args:
        account: the account of the jobs; None takes the lowest limit of the user's accounts.
        qos: the QOS of the jobs, if they name one.

    Returns:
        The lowest of the limits MaxSubmitJobs and GrpSubmitJobs of association and QOS; None if
        there is none, or the accounting cannot be asked.
    """
    who = [f"user={getpass.getuser()}"] + ([f"account={account}"] if account else [])
    asked = [["assoc", *who, "format=MaxSubmitJobs,GrpSubmitJobs"]]
    if qos:
        asked.append(["qos", qos, "format=MaxSubmitJobsPerUser,GrpSubmitJobs"])
    try:
        answers = [_call(["sacctmgr", "-nP", "show", *what]) for what in asked]
    except SlurmError:
        return None
    return min((int(number) for number in re.findall(r"\d+", "\n".join(answers))), default=None)


def _call(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise SlurmError(f"no command {command[0]}: is this a machine of the cluster?") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {_TIMEOUT} s") from None
    if done.returncode:
        raise SlurmError(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
