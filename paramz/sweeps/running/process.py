"""Worker processes, seen from the process that starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from paramz.sweeps.running.sign_of_life import SignOfLife
from paramz.sweeps.running.wording import killed_by
from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import Attempt

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_AFTER_CLOSE = 2.0  # seconds that a process whose connection is closed has to end by itself
_CUT_OFF = (
    "the worker process went on without its connection to the pool, and was ended; does the "
    "training function close files that it has not opened (os.closerange)?"
)


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

    def exceeded(self, seconds: float, silence: float) -> str | None:
        """The time limit that the trial has exceeded, in words; None if it has exceeded none.

        Args:
            seconds: how long the trial has run, over all attempts.
            silence: seconds since it has logged anything.
        """
        if self.minutes is not None and seconds > 60 * self.minutes:
            return f"over its time limit of {self.minutes:g} minutes"
        if self.silent_minutes is not None and silence > 60 * self.silent_minutes:
            return f"logged nothing for {self.silent_minutes:g} minutes (a hang?)"
        return None


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
        sign: when its trial last logged something.
        killed_because: why its trial has failed, once the worker was killed for that.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    threads: int
    slot: int
    ready: bool = False
    assignment: Assignment | None = None
    attempt: Attempt | None = None
    sign: SignOfLife = field(default_factory=SignOfLife)
    killed_because: str | None = None

    def exited(self) -> bool:
        """Whether the process has ended.

        The end of the connection does not tell: a child that the process has forked keeps it open.
        """
        if self.process.returncode is not None:
            return True
        what = os.WEXITED | os.WNOHANG | os.WNOWAIT  # do not reap it: `end` needs its group
        try:
            return os.waitid(os.P_PID, self.process.pid, what) is not None
        except ChildProcessError:  # this process ignores SIGCHLD, so that nothing needs reaping
            return self.process.poll() is not None

    def await_exit(self) -> None:
        """Let a process that has closed its connection end by itself: its code tells why."""
        give_up = time.monotonic() + _AFTER_CLOSE
        while not self.exited():
            if time.monotonic() > give_up:
                self.killed_because = self.killed_because or _CUT_OFF
                return
            time.sleep(0.01)

    def kill_if_overdue(self, history: Path) -> None:
        """Kill the process if its trial has run, or been silent, for too long.

        Args:
            history: the file of the trial's history.
        """
        assert self.assignment is not None and self.attempt is not None
        if self.ready and self.killed_because is None:
            silence = self.sign.silence(history)
            self.killed_because = self.assignment.exceeded(self.attempt.seconds(), silence)
            if self.killed_because:
                self.kill()

    def kill(self) -> None:
        """Kill the process and its children; it is still to be waited for."""
        if self.process.returncode is None:  # afterwards the number of the group may be another's
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill what is left of the process and its children; the exit code of the process."""
        self.kill()
        self.connection.close()
        return self.process.wait()


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
            # Ctrl-C at the terminal reaches the pool alone, and the worker's group is its own
            start_new_session=True,
        )
    return Worker(process, Connection(ours.detach()), threads, slot)


def cause(code: int) -> str:
    """Why a worker process has ended, from its exit code."""
    if code >= 0:
        return f"the worker process exited with code {code}"
    return f"the worker process was {killed_by(-code)}"
