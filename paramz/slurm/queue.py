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

_FORMAT = "%i|%K|%T|%M|%r|%k"  # id, index in the array, state, elapsed, reason, comment
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
        reason: why it waits, in Slurm's words such as Resources; empty if it does not wait.
    """

    job: str
    element: int
    state: str
    comment: str
    reason: str = ""


def queued(name: str) -> list[QueuedJob]:
    """Every job with this name, of any user, that is waiting or running.

    Raises:
        SlurmError: squeue is missing, or the controller does not answer.
    """
    what = ["--array", "--all", f"--name={name}", f"--format={_FORMAT}"]
    jobs = []
    for line in _call(["squeue", "--noheader", *what]).splitlines():
        job, element, state, elapsed, reason, comment = line.split("|", 5)
        if state == "COMPLETING":  # its processes are being ended
            if elapsed != "0:00":  # and the job is over
                continue
            state, reason = "PENDING", "Requeued"  # and the job will run again
        index = int(element) if element.isdigit() else 0
        waits = reason if state == "PENDING" and reason != "None" else ""
        jobs.append(QueuedJob(job, index, state, comment.strip(), waits))
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


def submittable(account: str | None = None, qos: str | None = None) -> int | None:
    """How many more jobs, elements of arrays included, this user may submit now.

    Args:
        account: the account of the jobs; None takes the lowest limit of the user's accounts.
        qos: the QOS of the jobs, if they name one.

    Returns:
        What the limits MaxSubmitJobs and GrpSubmitJobs of association and QOS leave beside the jobs
        that are queued; None if there is no limit, or the accounting cannot be asked.
    """
    user = getpass.getuser()
    mine = [f"--user={user}"] + ([f"--account={account}"] if account else [])
    who = [f"user={user}"] + ([f"account={account}"] if account else [])
    try:
        # What the row of a user says of the group concerns the user alone.
        found = _limits("assoc", *who, "format=MaxSubmitJobs,GrpSubmitJobs")
        room = [limit - _count(mine) for limits in found for limit in limits]
        if qos:
            of_qos = f"--qos={qos}"
            own = _limits("qos", qos, "format=MaxSubmitJobsPerUser")
            room += [limit - _count([f"--user={user}", of_qos]) for (limit,) in filter(None, own)]
            all_of_it = _limits("qos", qos, "format=GrpSubmitJobs")
            room += [limit - _count([of_qos]) for (limit,) in filter(None, all_of_it)]
    except SlurmError:
        return None
    return max(0, min(room)) if room else None


def _limits(*what: str) -> list[list[int]]:
    """The numbers in each row that the accounting shows; a limit that is not set is none."""
    rows = _call(["sacctmgr", "-nP", "show", *what]).splitlines()
    return [[int(cell) for cell in row.split("|") if cell.isdigit()] for row in rows]


def _count(which: list[str]) -> int:
    """How many jobs of a kind are queued or running, elements of arrays counted one by one."""
    what = ["squeue", "--noheader", "--array", "--all", "--format=%i"]
    return len(_call([*what, *which]).splitlines())


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
