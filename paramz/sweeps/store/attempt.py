"""Attempts: which process runs a trial, and whether that process is still alive.

The n-th attempt at a trial is the file ``trials/<key>/attempt-<n>.json``. It is created
exclusively, so that exactly one process on one machine can make it; a process takes over an
abandoned trial by creating the next file, never by deleting one. The modification time of the file
is the attempt's heartbeat. When the attempt ends, the reason is written into it.

On the machine of an attempt, the process itself tells whether it is alive. From any other machine
only the heartbeat tells, also if the attempt is an earlier one of the same Slurm job: a node that
Slurm has lost sight of, and whose job it has started elsewhere, may go on working. A process that
was taken for dead notices, when it gives its heartbeat, that there is a later attempt, and ends.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paramz.sweeps.store.clock import Clock
from paramz.sweeps.store.files import read_json, write_over
from paramz.sweeps.store.record import STATUSES

HEARTBEAT = 15.0  # seconds between heartbeats
STALE = 120.0  # seconds without a heartbeat after which another machine's attempt counts as dead


@dataclass
class Attempt:
    """One attempt at one trial, made by this process.

    Attributes:
        path: the file of the attempt.
        number: 1 for the first attempt at the trial.
        spent: seconds that earlier attempts at the trial took since it last had a result.
        clock: runs since the attempt has begun.
    """

    path: Path
    number: int
    spent: float
    clock: Clock = field(default_factory=Clock)

    def begin(self) -> None:
        """Start the clock. The time that the worker process took to start is not counted."""
        self.clock = Clock()

    def touch(self) -> None:
        """Give a heartbeat."""
        try:
            os.utime(self.path)
        except OSError:
            pass  # the file system is away for a moment; the next heartbeat follows soon

    def superseded(self) -> bool:
        """Whether another process has taken over the trial because it saw no heartbeat."""
        return superseded(self.path.parent, self.number)

    def removed(self) -> bool:
        """Whether the file of the attempt is gone, as when a trial deletes its own directory."""
        try:
            os.stat(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            pass  # the file system is away for a moment
        return False

    def seconds(self) -> float:
        """Running time of the trial so far, including earlier attempts, without suspensions."""
        return self.spent + self.clock.seconds()

    def end(self, why: str) -> None:
        """Record that the attempt has ended, and why."""
        record = read_json(self.path) or {}
        record |= {"ended": time.time(), "why": why, "seconds": self.seconds()}
        try:
            write_over(self.path, json.dumps(record))
        except OSError:
            pass  # the disk is full; once the heartbeat is stale, others know it as well


def claim(folder: Path) -> Attempt | None:
    """Start an attempt at a trial, unless another process is running it.

    Args:
        folder: the directory of the trial; it is created if it is missing.

    Returns:
        The attempt, or None if another process is running the trial.

    Raises:
        OSError: the file of the attempt cannot be written, for example because the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number, record = _latest(folder)
    path = folder / f"attempt-{number:04d}.json"
    if number and "ended" not in record and _alive(path, record, folder):
        return None
    mine = folder / f"attempt-{number + 1:04d}.json"
    try:
        fd = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    try:
        os.write(fd, json.dumps(identity() | {"number": number + 1}).encode())
    except OSError:
        os.unlink(mine)  # the disk is full; an empty file would keep all others from the trial
        raise
    finally:
        os.close(fd)
    # What had a result and runs again, as somebody asked for, has all its time again.
    again = record.get("why") in STATUSES
    return Attempt(mine, number + 1, spent=0.0 if again else float(record.get("seconds", 0.0)))


def holder(folder: Path) -> dict[str, Any] | None:
    """The attempt that is running the trial of this directory now; None if there is none."""
    number, record = _latest(folder)
    if not number or "ended" in record:
        return None
    return record if _alive(folder / f"attempt-{number:04d}.json", record, folder) else None


def superseded(folder: Path, number: int) -> bool:
    """Whether a trial has an attempt later than this one."""
    return last_attempt(folder) > number


def last_attempt(folder: Path) -> int:
    """The number of the last attempt at a trial; 0 if there was none."""
    return _latest(folder)[0]


def attempt_of(folder: Path, job: str | None, restart: int) -> dict[str, Any] | None:
    """The attempt that a run of a Slurm job is making at a trial now, on whatever node.

    Args:
        folder: the directory of the trial.
        job: the job.
        restart: how often Slurm had requeued the job when that run began.
    """
    number, record = _latest(folder)
    mine = bool(number) and record.get("job") == job and record.get("restart", 0) == restart
    return record if mine and "ended" not in record else None


def heard_from(folder: Path, number: int) -> bool:
    """Whether the heartbeat of an attempt is recent."""
    path = folder / f"attempt-{number:04d}.json"
    try:
        return _file_system_time(folder) - os.stat(path).st_mtime < STALE
    except OSError:
        return True  # the file system is away for a moment


def identity() -> dict[str, Any]:
    """What identifies this process in an attempt: machine, pid, start, and the run of a Slurm job.

    "restart" is how often Slurm has requeued the job.
    """
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "born": _born(pid),
        "job": slurm_job(),
        "restart": slurm_restart(),
        "started": time.time(),
    }


def slurm_job() -> str | None:
    """The Slurm job of this process, ``123_4`` for an element of an array; None outside of one."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def slurm_restart() -> int:
    """How often Slurm has requeued the job of this process."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _latest(folder: Path) -> tuple[int, dict[str, Any]]:
    """Number and content of the last attempt; 0 and nothing if there was none."""
    try:
        numbers = [int(name[8:-5]) for name in os.listdir(folder) if _is_attempt(name)]
    except FileNotFoundError:
        return 0, {}
    if not numbers:
        return 0, {}
    return max(numbers), read_json(folder / f"attempt-{max(numbers):04d}.json") or {}


def _is_attempt(name: str) -> bool:
    return name.startswith("attempt-") and name.endswith(".json") and name[8:-5].isdigit()


def _alive(path: Path, record: dict[str, Any], folder: Path) -> bool:
    """Whether the process of an attempt is running: by pid on this machine, else by heartbeat."""
    here = record.get("machine", _machine()) == _machine()  # attempts of before have no machine
    if record.get("host") == socket.gethostname() and here:
        return bool(_born(int(record["pid"])) == record["born"])
    return heard_from(folder, int(path.stem[8:]))


def _machine() -> str:
    """What the pids of this machine or container, since it was started, have in common."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""  # not Linux: the name of the host is all there is


def _born(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; tells it from one that reuses its pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self").exists() else _born_elsewhere(pid)
    return stat.rpartition(")")[2].split()[19]


def _born_elsewhere(pid: int) -> str | None:
    """The same without /proc (macOS), where only whether the process is alive can be found out."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def _file_system_time(folder: Path) -> float:
    """The present time by the clock that stamps the heartbeats, which may be a file server's."""
    probe = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        # a reader who may not write, or a full disk; machines' clocks differ by less than STALE
        return time.time()
