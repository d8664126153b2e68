"""Worker processes, seen from the process that starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import Attempt

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Assignment:
    """A trial that a pool is to run, with what it may use.

    Attributes:
        key: the key of the trial.
        config: its config.
        threads: threads of its process.
        minutes: its time limit over all attempts; None sets no limit.
        silent_minutes: how long it may log nothing; None sets no limit.
    """

    key: str
    config: Config
    threads: int = 1
    minutes: float | None = None
    silent_minutes: float | None = None


@dataclass
class Worker:
    """A worker process, and the trial that it is running.

    Attributes:
        process: the process.
        connection: where orders are sent and outcomes received.
        threads: number of threads that its environment allows.
        slot: its place in the pool, which decides the GPU that it sees.
        ready: whether it has imported the training function.
        assignment: the trial that it runs; None while it is idle.
        attempt: the attempt at that trial.
        killed_because: the limit that its trial has exceeded, once it was killed for that.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    threads: int
    slot: int
    ready: bool = False
    assignment: Assignment | None = None
    attempt: Attempt | None = None
    killed_because: str | None = None


def start_worker(
    target: str, threads: int, environment: Mapping[str, str], slot: int = 0
) -> Worker:
    """Start a worker process; it sends "ready" when it has imported the training function."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "paramz.sweeps.running.worker", str(theirs.fileno()), target],
            env=os.environ | dict.fromkeys(_THREADS, str(threads)) | dict(environment),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C at the terminal reaches the pool alone
        )
    return Worker(process, Connection(ours.detach()), threads, slot)


def cause(code: int) -> str:
    """Why a worker process has ended, from its exit code."""
    if code >= 0:
        return f"the worker process exited with code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the worker process was killed by {name}{hint}"
