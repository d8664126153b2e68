"""Reading the metrics of a command while it runs: rows of numbers, as they appear in its files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from pathlib import Path

from paramz.sweeps.running.events import tensorboard_rows, wandb_rows
from paramz.sweeps.running.row import Row, numbers
from paramz.sweeps.spec.command import HISTORY, Metrics

Reader = Callable[[], list[Row]]
"""Gives the rows that have appeared since it was called last."""

_DELIMITERS = ",\t;"


def reader_of(metrics: Metrics, file: str, output: Path) -> Reader:
    """The reader of a command's metrics.

    Args:
        metrics: where they are.
        file: `Metrics.file` with its holes filled, an absolute path.
        output: the file that the command's output goes to.

    Raises:
        ImportError: TensorBoard or W&B are not installed.
    """
    if metrics.pattern is not None:
        return partial(_matches, re.compile(metrics.pattern), Lines(str(output)))
    if metrics.kind == "tensorboard":
        return tensorboard_rows(file, metrics.step)
    if metrics.kind == "wandb":
        return wandb_rows(file, metrics.step)
    return partial(_json_rows, Lines(file)) if metrics.kind == "jsonl" else CsvRows(Lines(file))


@dataclass
class Lines:
    """The lines of a file that grows: those that have been finished since the last look.

    Attributes:
        pattern: the path, which may hold ``*``; of several files the newest counts.
        starts: how often reading has begun at the start of a file.

    A file that became shorter, or another one that is the newest now, is read from its start.
    """

    pattern: str
    starts: int = 0
    _path: str = ""
    _at: int = 0

    def new(self) -> Iterator[str]:
        """The new lines, without their ends."""
        newest = newest_of(self.pattern)
        if newest is None:
            return
        if newest != self._path or Path(newest).stat().st_size < self._at:
            self._path, self._at = newest, 0
            self.starts += 1
        with open(newest, "rb") as file:
            file.seek(self._at)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        yield from whole.decode("utf-8", errors="replace").splitlines()


def newest_of(pattern: str) -> str | None:
    """The newest file that a path with ``*`` matches, paramz's own excepted; None without one."""
    mine = (path for path in glob(pattern) if Path(path).name != HISTORY)
    found = [(Path(path).stat().st_mtime_ns, path) for path in mine]
    return max(found)[1] if found else None


def _json_rows(lines: Lines) -> list[Row]:
    rows = []
    for line in lines.new():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # such as a line of text between those of JSON
        if isinstance(value, dict):
            rows.append(numbers(value))
    return rows


def _matches(pattern: re.Pattern[str], lines: Lines) -> list[Row]:
    found = (pattern.search(line) for line in lines.new())
    return [numbers(match.groupdict()) for match in found if match]


@dataclass
class CsvRows:
    """The rows of a growing file of CSV, whose delimiter is that of its first line."""

    lines: Lines
    _start: int = 0
    _head: list[str] = field(default_factory=list)
    _delimiter: str = ","

    def __call__(self) -> list[Row]:
        """The new rows; a header that comes again, as a resumed script writes it, is none."""
        rows = []
        for line in self.lines.new():
            if not line.strip():
                continue
            if self._start != self.lines.starts:
                self._start = self.lines.starts
                self._delimiter = max(_DELIMITERS, key=line.count)
                self._head = self._cells(line)
            elif (cells := self._cells(line)) != self._head:
                rows.append(numbers(dict(zip(self._head, cells, strict=False))))
        return rows

    def _cells(self, line: str) -> list[str]:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=self._delimiter))]
