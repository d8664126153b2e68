"""The store of a sweep: one JSON file per finished trial, named by the key of its config.

::

    runs/<name>/spec.yaml         the spec as it was last run
    runs/<name>/run.json          training function, versions, commit
    runs/<name>/trials.jsonl      key and config of every trial of the spec
    runs/<name>/refined-<n>.jsonl the same of those that the n-th refinement added
    runs/<name>/results/<key>.json
    runs/<name>/trials/<key>/     attempts, log.txt, history.jsonl, and what the function saves
    runs/<name>/quarantine/       files found broken; their trials count as missing
"""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from paramz.sweeps.spec.config import Config, leaves
from paramz.sweeps.store.files import read_bytes, read_json, write_new, write_over

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
STATUSES = ("ok", "diverged", "stopped", "failed")
_FIELDS = {"key", "status", "error", "config", "metrics", "seconds"}


@dataclass(frozen=True)
class Store:
    """The directory of a sweep."""

    root: Path

    @property
    def results(self) -> Path:
        """Where the results are."""
        return self.root / "results"

    def trial(self, key: str) -> Path:
        """The private directory of a trial."""
        return self.root / "trials" / key

    def result(self, key: str) -> Path:
        """The file of a trial's result."""
        return self.results / f"{key}.json"

    def create(self) -> "Store":
        """Make the directories that are missing, with the permissions of the user's umask."""
        self.results.mkdir(parents=True, exist_ok=True)
        (self.root / "trials").mkdir(exist_ok=True)
        return self

    def finished(self) -> set[str]:
        """The keys that have a result file; the files are not opened."""
        try:
            names = os.listdir(self.results)
        except FileNotFoundError:
            return set()
        return {name[:-5] for name in names if name.endswith(".json") and name[0] != "."}

    def save(self, record: Record) -> bool:
        """Write the result of a trial; the first of several writers wins.

        Returns:
            Whether this record is now the trial's result.

        Raises:
            OSError: If the disk is full or the like; then there is no result.
        """
        return write_new(self.result(record["key"]), json.dumps(record) + "\n")

    def read(self, key: str) -> Record | None:
        """The result of a trial; None if there is none. A broken file is quarantined."""
        name = f"{self.root}/results/{key}.json"
        try:
            content = read_bytes(name)
        except FileNotFoundError:
            return None
        try:
            record = from_json(content)
        except ValueError:
            reason = "it is not whole JSON"
        else:
            if _is_result(record, key):
                return record  # type: ignore[no-any-return]
            reason = "it is no result of the trial it is named after"
        target = self.quarantine(Path(name))
        warnings.warn(f"{name}: {reason}; moved to {target}", stacklevel=2)
        return None

    def quarantine(self, path: Path) -> Path:
        """Move a broken file out of the way, keeping every earlier one."""
        folder = self.root / "quarantine"
        folder.mkdir(exist_ok=True)
        target, n = folder / path.name, 1
        while target.exists():
            target, n = folder / f"{path.stem}.{n}{path.suffix}", n + 1
        try:
            os.replace(path, target)
        except FileNotFoundError:
            pass  # another reader was faster
        return target

    def records(self) -> Iterator[Record]:
        """Every valid result, in the order of the keys."""
        for key in sorted(self.finished()):
            if (record := self.read(key)) is not None:
                yield record

    def retire(self, key: str) -> None:
        """Put a result aside so that the trial runs again; it stays in the trial's directory."""
        folder = self.trial(key)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("result-*.json"))) + 1
        try:
            os.rename(self.result(key), folder / f"result-{number:04d}.json")
        except FileNotFoundError:
            pass  # somebody else retries it too

    def set_trials(self, trials: Mapping[str, Config], by: str = "trials") -> None:
        """Say which trials the spec asks for, or (`by="refined-1"` ...) a round of refinement."""
        lines = (json.dumps({"key": key, "config": c}) for key, c in trials.items())
        write_over(self.root / f"{by}.jsonl", "".join(f"{line}\n" for line in lines))

    def trials(self) -> dict[str, Config]:
        """The trials asked for: configs by key."""
        found: dict[str, Config] = {}
        for path in [self.root / "trials.jsonl", *sorted(self.root.glob("refined-*.jsonl"))]:
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                rows = from_json(f"[{','.join(lines)}]")
                found |= {row["key"]: row["config"] for row in rows}
        return found

    def rounds(self) -> int:
        """Rounds of refinement that were added."""
        return len(list(self.root.glob("refined-*.jsonl")))

    def info(self) -> dict[str, Any]:
        """What run.json says: training function, loss limit, versions."""
        return read_json(self.root / "run.json") or {}


def _is_result(record: Any, key: str) -> bool:
    return (
        isinstance(record, dict)
        and record.keys() >= _FIELDS
        and record["status"] in STATUSES
        and record["key"] == key
        and isinstance(record["config"], dict)
    )


def open_store(directory: str | Path) -> Store:
    """The store in a directory that is one.

    Raises:
        FileNotFoundError: If the directory holds no sweep; lists those beside it that do.
    """
    store = Store(Path(directory))
    if store.results.is_dir():
        return store
    beside = store.root.parent
    found = sorted(p.parent for p in beside.glob("*/results")) if beside.is_dir() else []
    hint = f"; sweeps there: {', '.join(map(str, found))}" if found else ""
    raise FileNotFoundError(f"{store.root} holds no sweep (no folder results/){hint}")


def load(directory: str | Path) -> "pd.DataFrame":
    """The finished trials of a sweep as a table.

    Args:
        directory: The directory of the sweep, `runs/<name>`.

    Returns:
        One row per finished trial: `key`, `status` ("ok", "diverged", "failed", or "stopped" by
        halving), `error` (text or None), one column per config leaf, one per metric (NaN when
        missing), `seconds`. A metric named like a config leaf gets the prefix `metric.`.

    Raises:
        FileNotFoundError: If the directory holds no sweep.

    Warns:
        UserWarning: For every broken result file, which is moved to `quarantine/`.
    """
    return frame(open_store(directory).records())


def frame(records: Iterable[Record]) -> "pd.DataFrame":
    """Results as a table; see `load`."""
    import pandas as pd

    rows = []
    for record in records:
        row = {name: record[name] for name in ("key", "status", "error")}
        row |= leaves(record["config"])
        for name, value in record["metrics"].items():
            row[f"metric.{name}" if name in row else name] = float(value)
        row["seconds"] = record["seconds"]
        rows.append(row)
    table = (
        pd.DataFrame(rows)
        if rows
        else pd.DataFrame(columns=["key", "status", "error", "loss", "seconds"])
    )
    last = table.pop("seconds")
    return table.assign(seconds=last)
