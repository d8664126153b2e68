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
from typing import Any

from paramz.sweeps.running.events import tensorboard_rows, wandb_rows
from paramz.sweeps.running.row import Row, numbers
from paramz.sweeps.spec.command import HISTORY, Metrics

Reader = Callable[[bool], list[Row]]
"""Gives the rows that have appeared since it was called last.

It is told whether this is the last call: nothing is being written any more, so that a line without
an end is whole.
"""

_DELIMITERS = ",\t;"
_REMEMBERED = 1024  # bytes before the place that was read up to, by which a new file is told


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
    if metrics.kind in ("tensorboard", "wandb"):
        binary = tensorboard_rows if metrics.kind == "tensorboard" else wandb_rows
        rows = binary(file, metrics.step)
        return lambda last: rows()
    return JsonRows(Lines(file)) if metrics.kind == "jsonl" else CsvRows(Lines(file))


@dataclass
class Lines:
    """The lines of a file that grows: those that have been finished since the last look.

    Attributes:
        pattern: the path, which may hold ``*``; of several files the newest counts.
        starts: how often reading has begun at the start of a file.

    A file that was written anew, or another one that is the newest now, is read from its start. One
    is new where it is shorter, or has other content before the place that was read up to: a script
    may write its last metrics over those of before, in as many bytes.
    """

    pattern: str
    starts: int = 0
    _path: str = ""
    _at: int = 0
    _before: bytes = b""

    def new(self, last: bool = False) -> Iterator[str]:
        """The new lines, without their ends.

        Args:
            last: nothing is being written any more, so that a line without an end is one.
        """
        newest = newest_of(self.pattern)
        if newest is None:
            return
        with open(newest, "rb") as file:
            file.seek(self._at - len(self._before))
            content = file.read()
            if newest != self._path or not content.startswith(self._before):
                self._path, self._at, self._before = newest, 0, b""
                self.starts += 1
                file.seek(0)
                content = file.read()
        content = content[len(self._before) :]
        whole = content if last else content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        self._before = (self._before + whole)[-_REMEMBERED:]
        yield from whole.decode("utf-8", errors="replace").splitlines()

    def all(self) -> str:
        """The text of the file that is read."""
        return Path(self._path).read_text(encoding="utf-8", errors="replace") if self._path else ""


def newest_of(pattern: str) -> str | None:
    """The newest file that a path with ``*`` matches, paramz's own excepted; None without one."""
    # Brackets are a trial's folder's own where nothing matches them as a range.
    paths = glob(pattern) or glob(pattern.replace("[", "[[]"))
    mine = (path for path in paths if Path(path).name != HISTORY)
    found = [(Path(path).stat().st_mtime_ns, path) for path in mine]
    return max(found)[1] if found else None


@dataclass
class JsonRows:
    """The rows of a growing file of JSON lines, or the one of a file that is a single mapping."""

    lines: Lines
    _start: int = 0
    _found: bool = False

    def __call__(self, last: bool = False) -> list[Row]:
        """The new rows."""
        values = [_value(line) for line in self.lines.new(last)]
        if self._start != self.lines.starts:
            self._start, self._found = self.lines.starts, False
        rows = [numbers(value) for value in values if isinstance(value, dict)]
        self._found |= bool(rows)
        whole = _value(self.lines.all()) if last and not self._found else None
        return [numbers(whole)] if isinstance(whole, dict) else rows


def _value(text: str) -> Any:
    """The value of a text; None if it is none of JSON, as text between lines of JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _matches(pattern: re.Pattern[str], lines: Lines, last: bool) -> list[Row]:
    found = (pattern.search(line) for line in lines.new(last))
    return [numbers(match.groupdict()) for match in found if match]


@dataclass
class CsvRows:
    """The rows of a growing file of CSV, whose delimiter is that of its first line."""

    lines: Lines
    _start: int = 0
    _head: list[str] = field(default_factory=list)
    _delimiter: str = ","

    def __call__(self, last: bool = False) -> list[Row]:
        """The new rows; a header that comes again, as a resumed script writes it, is none."""
        rows = []
        for line in self.lines.new(last):
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
