"""Attempts: who runs a trial, and whether he still does.

The n-th attempt at a trial is the file `trials/<key>/attempt-<n>.json`, created exclusively: of all
processes on all machines one gets it, and nothing is ever deleted to take a trial over. Its
modification time is the heartbeat; when the attempt ends, the reason is written into it.
"""

import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paramz.sweeps.store.files import read_json, write_over

HEARTBEAT = 15.0  # seconds between touches
STALE = 120.0  # seconds without one after which an attempt on another machine counts as dead


@dataclass
class Attempt:
    """One attempt at one trial, held by this process."""

    path: Path
    number: int
    spent: float
    started: float = field(default_factory=time.time)

    def begin(self) -> None:
        """Start the clock: the worker is ready, what it took to start is no part of the trial."""
        self.started = time.time()

    def touch(self) -> None:
        """Say that the attempt lives."""
        try:
            os.utime(self.path)
        except OSError:
            pass  # a file system that is away for a moment: the next beat comes in seconds

    def superseded(self) -> bool:
        """Whether another process has taken the trial over, having seen no heartbeat for long."""
        return _latest(self.path.parent)[0] != self.number

    def seconds(self) -> float:
        """Running time of the trial so far, earlier attempts included."""
        return self.spent + time.time() - self.started

    def end(self, why: str) -> None:
        """Record that, and how, the attempt ended."""
        record = read_json(self.path) or {}
        record |= {"ended": time.time(), "why": why, "seconds": self.seconds()}
        try:
            write_over(self.path, json.dumps(record))
        except OSError:
            pass  # on a full disk the heartbeat just ceases, which says the same later


def claim(folder: Path) -> Attempt | None:
    """Take a trial, unless somebody is at it.

    Args:
        folder: The trial's directory; made if missing.

    Returns:
        The attempt, or None if another process holds the trial.
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
        os.unlink(mine)  # the disk is full: a claim that names nobody would keep others away
        raise
    finally:
        os.close(fd)
    return Attempt(mine, number + 1, spent=float(record.get("seconds", 0.0)))


def holder(folder: Path) -> dict[str, Any] | None:
    """Who runs the trial of this directory now; None if nobody does."""
    number, record = _latest(folder)
    if not number or "ended" in record:
        return None
    return record if _alive(folder / f"attempt-{number:04d}.json", record, folder) else None


def identity() -> dict[str, Any]:
    """This process, as an attempt names it: host, pid, its start, and the Slurm job if any."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "born": _born(pid),
        "job": slurm_job(),
        "started": time.time(),
    }


def slurm_job() -> str | None:
    """The Slurm job of this process, an array element as `123_4`."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def _latest(folder: Path) -> tuple[int, dict[str, Any]]:
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
    if record.get("host") == socket.gethostname():
        return bool(_born(int(record["pid"])) == record["born"])
    if record.get("job") and record["job"] == slurm_job():
        return False  # this job's own run before it was requeued
    try:
        age = _file_system_time(folder) - os.stat(path).st_mtime
    except OSError:
        return True
    return age < STALE


def _born(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: tells a reused pid from the old process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self").exists() else _born_elsewhere(pid)
    return stat.rpartition(")")[2].split()[19]


def _born_elsewhere(pid: int) -> str | None:
    """The same without /proc (macOS): alive or not is all that can be had."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def _file_system_time(folder: Path) -> float:
    """Now, by the clock that stamps the heartbeats, which may be a file server's."""
    probe = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
