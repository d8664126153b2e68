"""Ends what workers have started when their pool is killed.

A pool ends the whole process group of each worker. A pool that is killed itself cannot: Linux then
kills its workers (`die_with_parent`) and the commands that they run, but not what these have
started, such as the processes of ``torchrun`` or of a shell script. They would go on writing into
the directories of trials that the next sweep has begun anew, and hold their GPUs.

So a process of its own waits until the pool is gone. It is this file, run as a script that imports
next to nothing; it reads which groups there are, and the end of its input is the end of the pool.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

_END = "end\n"


class Guard:
    """A process that ends groups of processes when this one dies, in whatever way."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """End a group of processes, given by its number, if this process dies."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                bufsize=0,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a signal to the group of the pool does not reach it
            )
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Leave a group that has ended: its number may soon be another one's."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Let the guard end."""
        self._tell(_END)  # a copy of this process, made by os.fork, may hold its input open
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
        self._process = None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # somebody has killed the guard: the pool goes on without
                self._process.stdin.write(line.encode())


def wait_and_end(lines: Iterable[str]) -> None:
    """Read which groups come and go, and kill those that are left at the end.

    Args:
        lines: ``+`` or ``-`` and the number of a group, or `_END`.
    """
    # Slurm's warnings go to every process of a job, and are the pool's business.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    groups = set[int]()
    for line in lines:
        if line == _END:
            break
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    wait_and_end(sys.stdin)
