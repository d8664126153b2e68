"""The index of a sweep's results: how they ended, and where their lines are in the logs.

Reading a million files takes most of a minute, reading their lines a few seconds, and reading the
snapshot of what was read before a fraction of one. The files stay the truth:

- The names in ``results/`` decide which results there are. A result without a line is read from its
  file, and a line without a file is dropped. The names are read unless the folder is unchanged.
- Up to `CHECKED` results, size and time of change of every file are compared with its line. Above
  that, only those of keys with several lines are. The store itself never changes a result in place;
  whoever does so by hand in a larger store deletes ``index/``, which is then made again.
- A user who may not write gets the same index, but makes it anew each time.
"""

from __future__ import annotations

import json
import mmap
import os
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from paramz.sweeps.store.keys import KEY, among, places_of_each
from paramz.sweeps.store.log import Identity, append, identity_of, result_line
from paramz.sweeps.store.record import Record, check_record
from paramz.sweeps.store.rows import NO_LINE, ROW, Numbers

CHECKED = 20_000  # results whose files are compared one by one at every look
_SUFFIX = b".json"
_BATCH = 5000  # results that are read before their lines are appended
_CHUNK = 1 << 25  # bytes of a log that are read at once
_SETTLED = 2_000_000_000  # ns: a folder that changed later may change again within its clock's tick


@dataclass
class Index:
    """What is known of a sweep's results.

    Attributes:
        rows: one per result, sorted by key, with the fields of `ROW`.
        sources: the hashes of codes, by number.
        kinds: an error of each kind, by number.
        logs: names of the logs, by number.
        read: how far each log was read, in bytes.
        folder: time of change of ``results/`` when its names were read; 0 if it may change again
            within a tick of its clock.
        unlogged: the results that have no line.
    """

    rows: NDArray[Any] = field(default_factory=lambda: np.empty(0, ROW))
    sources: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    folder: int = 0
    unlogged: dict[str, Record] = field(default_factory=dict)

    def records(self, root: Path, read: Callable[[str], Record | None]) -> Iterator[Record]:
        """The results without their tracebacks, sorted by key.

        Args:
            root: the directory of the sweep.
            read: reads the file of a result by key, should its line be gone meanwhile.
        """
        maps: dict[int, mmap.mmap] = {}
        for row in self.rows:
            key = row["key"].decode()
            record: Record | None
            if row["log"] == NO_LINE:
                record = self.unlogged[key]
            else:
                start, number = int(row["start"]), int(row["log"])
                try:
                    if number not in maps:
                        with open(root / "index" / self.logs[number], "rb") as file:
                            maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    record = from_json(maps[number][start : start + int(row["length"])])["record"]
                except (OSError, ValueError, KeyError, TypeError):
                    record = read(key)
            if record is not None:
                yield record


def read_index(root: Path, read: Callable[[str], Record | None]) -> Index:
    """The index of the results in a directory as they are now.

    Args:
        root: the directory of the sweep.
        read: reads the file of a result by key; None if there is none, or none that is valid.
    """
    index = _snapshot(root)
    grown = _read_logs(root, index)
    folder = _changed(root / "results")
    if folder and folder == index.folder and not grown:
        return index
    names = _names(root)
    index.rows = _confirmed(root, index.rows, names)
    missing = names[~among(names, index.rows["key"])]
    if len(missing):
        _add(root, index, missing, read)
        index.rows = _confirmed(root, index.rows, names)
    settled = time.time_ns() - folder > _SETTLED
    index.folder = folder if settled and len(names) > CHECKED else 0
    if len(names) > CHECKED:
        _save(root, index)
    return index


def _read_logs(root: Path, index: Index) -> bool:
    """Read what the logs have that was not read yet; whether there was anything."""
    parts = [index.rows]
    for path in sorted((root / "index").glob("*.jsonl")):
        if path.name not in index.logs:
            index.logs.append(path.name)
        number, start = index.logs.index(path.name), index.read.get(path.name, 0)
        try:
            with open(path, "rb") as file:
                file.seek(start)
                rest = b""
                while chunk := file.read(_CHUNK):
                    whole, newline, rest = (rest + chunk).rpartition(b"\n")
                    parts.append(_rows_of(index, whole + newline, number, start))
                    start += len(whole + newline)
        except OSError:
            continue  # its results are found by their files
        index.read[path.name] = start
    if len(parts) == 1:
        return False
    index.rows = np.concatenate(parts)
    return True


def _rows_of(index: Index, text: bytes, log: int, start: int) -> NDArray[Any]:
    """The rows of some lines; broken lines have none, and one that retires a result takes its."""
    rows: list[tuple[Any, ...]] = []
    retired: set[tuple[bytes, int, int]] = set()
    numbers = Numbers(index.sources, index.kinds)
    for line in text.splitlines(keepends=True):
        try:
            content = from_json(line)
            size, changed = content["id"]
            if "retired" in content:
                retired.add((content["retired"].encode(), size, changed))
            else:
                record = content["record"]
                check_record(record, record["key"])
                rows.append(numbers.row(record, (size, changed), (log, start, len(line))))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            pass
        start += len(line)
    found = np.array(rows, ROW)
    if not retired:
        return found
    index.rows = _without(index.rows, retired)
    return _without(found, retired)


def _without(rows: NDArray[Any], retired: set[tuple[bytes, int, int]]) -> NDArray[Any]:
    suspects = np.flatnonzero(np.isin(rows["key"], [key for key, _, _ in retired]))
    gone = [i for i in suspects if tuple(rows[["key", "size", "changed"]][i]) in retired]
    return np.delete(rows, gone)


def _names(root: Path) -> NDArray[Any]:
    """The keys that have a file in ``results/``, sorted."""
    try:
        names = os.listdir(os.fsencode(root / "results"))
    except FileNotFoundError:
        names = []
    width = np.dtype(KEY).itemsize + len(_SUFFIX)
    found = np.array([name for name in names if len(name) == width], f"S{width}")
    split = found.view([("key", KEY), ("suffix", f"S{len(_SUFFIX)}")])
    return np.sort(split["key"][split["suffix"] == _SUFFIX])


def _changed(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _confirmed(root: Path, rows: NDArray[Any], names: NDArray[Any]) -> NDArray[Any]:
    """One row per key, of those whose file is the one in ``results/`` now; sorted by key."""
    rows = rows[among(rows["key"], names)]
    first, again = places_of_each(rows["key"])
    doubted = names if len(names) <= CHECKED else rows["key"][first[again]]
    if len(doubted):
        found = {key: identity_of(root / "results" / f"{key.decode()}.json") for key in doubted}
        suspects = np.flatnonzero(among(rows["key"], doubted))
        wrong = [
            i
            for i in suspects
            if found[rows["key"][i]] != (int(rows["size"][i]), int(rows["changed"][i]))
        ]
        if wrong:
            rows = np.delete(rows, wrong)
            first, _ = places_of_each(rows["key"])
    return rows[first]


def _add(
    root: Path, index: Index, keys: NDArray[Any], read: Callable[[str], Record | None]
) -> None:
    """Read results that have no line from their files, append their lines, and read those."""
    rows: list[tuple[Any, ...]] = []
    numbers = Numbers(index.sources, index.kinds)
    for begin in range(0, len(keys), _BATCH):
        batch: list[tuple[Record, Identity]] = []
        for key in (key.decode() for key in keys[begin : begin + _BATCH]):
            identity = identity_of(root / "results" / f"{key}.json")
            record = read(key)
            if record is not None and identity is not None:
                batch.append((record, identity))
        if not batch or append(root, [result_line(*one) for one in batch]):
            continue
        for record, identity in batch:
            index.unlogged[record["key"]] = record
            rows.append(numbers.row(record, identity, (NO_LINE, 0, 0)))
    index.rows = np.concatenate([index.rows, np.array(rows, ROW)])
    _read_logs(root, index)


def _save(root: Path, index: Index) -> None:
    """Write the snapshot, if the user may and every result has a line."""
    if index.unlogged:
        return
    path = root / "index" / "snapshot.npz"
    draft = path.with_name(f".snapshot.{uuid.uuid4().hex[:8]}.npz")
    known = {
        "sources": index.sources,
        "kinds": index.kinds,
        "logs": index.logs,
        "read": index.read,
        "folder": index.folder,
    }
    try:
        np.savez(draft, rows=index.rows, known=np.array(json.dumps(known)))
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)


def _snapshot(root: Path) -> Index:
    """The index as it was last written; an empty one if there is none that fits the logs."""
    try:
        with np.load(root / "index" / "snapshot.npz", allow_pickle=False) as saved:
            rows, known = saved["rows"], json.loads(str(saved["known"]))
        if rows.dtype != ROW:
            return Index()
        for name, length in known["read"].items():
            if os.stat(root / "index" / name).st_size < length:
                return Index()
        return Index(rows, **known)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return Index()
