"""Worker processes, as those see them who start them."""

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
class Task:
    """A trial to run, with its limits."""

    key: str
    config: Config
    threads: int = 1
    minutes: float | None = None
    silent_minutes: float | None = None


@dataclass
class Worker:
    """A worker process, the trial that it runs, and the attempt that this is."""

    process: subprocess.Popen[bytes]
    connection: Connection
    threads: int
    slot: int
    ready: bool = False
    task: Task | None = None
    attempt: Attempt | None = None
    condemned: str | None = None


def start_worker(
    target: str, threads: int, environment: Mapping[str, str], slot: int = 0
) -> Worker:
    """Start a worker process; it says "ready" when it has imported the training function."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "paramz.sweeps.running.worker", str(theirs.fileno()), target],
            env=os.environ | dict.fromkeys(_THREADS, str(threads)) | dict(environment),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal reaches the pool alone
        )
    return Worker(process, Connection(ours.detach()), threads, slot)


def cause(code: int) -> str:
    """Why a worker is dead, from its exit code."""
    if code >= 0:
        return f"the worker process exited with code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the worker process was killed by {name}{hint}"
