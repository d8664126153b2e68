"""Reading the binary logs of TensorBoard and of offline W&B runs while they grow."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paramz.sweeps.running.row import Row, numbers

# W&B's files are LevelDB logs: blocks with records, each a header of checksum, length and type.
_BLOCK, _HEADER, _IDENTITY = 32768, 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def tensorboard_rows(folder: str, step: str) -> Callable[[], list[Row]]:
    """A reader of the scalars in a folder of event files, with those of one step in one row.

    Args:
        folder: the folder, or one of its files; searched below, too.
        step: the name that the step gets.

    Raises:
        ImportError: tensorboard is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise ImportError(
            "reading TensorBoard events needs tensorboard: pip install tensorboard"
        ) from None
    loaders: dict[Path, Any] = {}

    def value_of(value: Any) -> float | None:
        if value.HasField("simple_value"):
            return float(value.simple_value)
        if value.HasField("tensor") and (array := make_ndarray(value.tensor)).size == 1:
            try:
                return float(array.reshape(-1)[0])
            except ValueError:  # a text
                return None
        return None

    def read() -> list[Row]:
        rows: dict[int, Row] = {}
        for path in _files(folder, "*tfevents*"):
            if path not in loaders:
                loaders[path] = LegacyEventFileLoader(str(path))
            for event in loaders[path].Load():
                for value in event.summary.value:
                    if (number := value_of(value)) is not None:
                        rows.setdefault(event.step, {step: float(event.step)})[value.tag] = number
        return list(rows.values())

    return read


def wandb_rows(folder: str, step: str) -> Callable[[], list[Row]]:
    """A reader of the history of an offline W&B run.

    Args:
        folder: the ``wandb`` folder that the script writes, of which the newest run counts; or
            the folder of a run; or its ``.wandb`` file.
        step: the name that W&B's own step gets.

    Raises:
        ImportError: wandb is not installed.
    """
    try:
        from wandb.proto import wandb_internal_pb2
    except ImportError:
        raise ImportError("reading W&B runs needs wandb: pip install wandb") from None
    logs: dict[Path, LevelLog] = {}

    def read() -> list[Row]:
        files = _files(folder, "*.wandb")
        if not files:
            return []
        path = max(files, key=lambda file: file.stat().st_mtime_ns)
        rows = []
        for content in logs.setdefault(path, LevelLog(path)).records():
            record = wandb_internal_pb2.Record.FromString(content)  # type: ignore[attr-defined]
            if record.WhichOneof("record_type") == "history":
                rows.append(_history(record.history.item, step))
        return rows

    return read


def _history(items: Any, step: str) -> Row:
    row: dict[str, Any] = {}
    for item in items:
        row[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    own = {name: value for name, value in row.items() if not name.startswith("_")}
    return numbers({step: row.get("_step"), **own})


def _files(place: str, pattern: str) -> list[Path]:
    path = Path(place)
    if path.is_file():
        return [path]
    # W&B's latest-run is a link to a folder that is found by its own name.
    return sorted(file for file in path.rglob(pattern) if file.is_file()) if path.is_dir() else []


@dataclass
class LevelLog:
    """The records of a growing file in the format of LevelDB's logs.

    Attributes:
        path: the file.
    """

    path: Path
    _at: int = _IDENTITY
    _parts: list[bytes] = field(default_factory=list)

    def records(self) -> Iterator[bytes]:
        """The records that have become whole since the last call."""
        begin = self._at
        with open(self.path, "rb") as file:
            file.seek(begin)  # it is looked at five times a second, and may hold pictures
            content = file.read()
        while True:
            at = self._at - begin
            room = _BLOCK - self._at % _BLOCK
            if room < _HEADER:  # the rest of a block that holds no header is filled with zeros
                self._at += room
                continue
            if len(content) < at + _HEADER:
                return
            _, length, kind = struct.unpack_from("<IHB", content, at)
            end = at + _HEADER + length
            if len(content) < end or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                return
            if kind in (_FULL, _FIRST):
                self._parts = []
            self._parts.append(content[at + _HEADER : end])
            self._at = begin + end
            if kind in (_FULL, _LAST):
                yield b"".join(self._parts)
