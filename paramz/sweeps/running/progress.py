"""Telling a person how a sweep goes: a bar with ETA on a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY = 10.0  # seconds between plain lines


class Reporter:
    """Counts trials as they end; a context manager.

    Args:
        total: Trials to run.
        file: Where to write; by default stderr, so that `--json` keeps stdout for itself.
    """

    def __init__(self, total: int, file: TextIO | None = None) -> None:
        self.total = total
        self.file = file or sys.stderr
        self.counts: Counter[str] = Counter()
        self.begun = self.last_line = time.monotonic()
        self.bar: Progress | None = None
        if self.file.isatty():
            self.bar = Progress(
                TextColumn("trials"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=Console(file=self.file),
            )
            self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> "Reporter":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        if self.bar:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.file, flush=True)

    def ended(self, status: str) -> None:
        """Count a trial that ended."""
        self.counts[status] += 1
        done = self.counts.total()
        if self.bar:
            self.bar.update(self.task, completed=done, description=described(self.counts))
            return
        now = time.monotonic()
        if now - self.last_line >= _LINE_EVERY and done < self.total:
            self.last_line = now
            left = (now - self.begun) / done * (self.total - done)
            self.say(f"{done}/{self.total} trials, {described(self.counts)}, ETA {duration(left)}")

    def elapsed(self) -> str:
        """The time since the start."""
        return duration(time.monotonic() - self.begun)


def described(counts: Counter[str]) -> str:
    """Counts by status, e.g. `46 ok, 1 failed`."""
    order = ("ok", "diverged", "stopped", "failed", "interrupted")
    return ", ".join(f"{counts[name]} {name}" for name in order if counts[name]) or "none"


def duration(seconds: float) -> str:
    """A time span for people.

    Example:
        >>> duration(8), duration(190), duration(7500)
        ('8s', '3m10s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
