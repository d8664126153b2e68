"""Showing the progress of a sweep: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
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

from paramz.sweeps.running.wording import described, duration

_LINE_EVERY = 10.0  # seconds between plain lines


class Reporter:
    """Counts trials as they end and shows the progress; a context manager.

    Args:
        total: number of trials to run.
        file: where to write; stderr by default, so that ``--json`` has stdout for itself.
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

    def __enter__(self) -> Reporter:
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
            with suppress(OSError):
                self.bar.stop()

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one; nothing once the terminal is closed."""
        with suppress(OSError):
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
