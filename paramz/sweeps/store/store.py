"""The store of a sweep: one JSON file per finished trial, named by the key of its config.

::

    runs/<name>/spec.yaml           the spec as it was last run
    runs/<name>/run.json            training function, versions, commit
    runs/<name>/trials.jsonl        key and config of every trial of the spec
    runs/<name>/refined-<n>.jsonl   the same for the trials that the n-th refinement added
    runs/<name>/results/<key>.json  the result of a finished trial
    runs/<name>/trials/<key>/       attempts, log.txt, history.jsonl, what the function saves
    runs/<name>/quarantine/         broken files; their trials count as not finished
"""

from __future__ import annotations

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
    """The directory of a sweep.

    Attributes:
        root: its path.
    """

    root: Path

    @property
    def results(self) -> Path:
        """The folder of the results."""
        return self.root / "results"

    def trial(self, key: str) -> Path:
        """The private directory of a trial."""
        return self.root / "trials" / key

    def result(self, key: str) -> Path:
        """The file of the result of a trial."""
        return self.results / f"{key}.json"

    def create(self) -> Store:
        """Create the directories that are missing, with the permissions of the user's umask."""
        self.results.mkdir(parents=True, exist_ok=True)
        (self.root / "trials").mkdir(exist_ok=True)
        return self

    def finished(self) -> set[str]:
        """The keys of the trials that have a result file; the files are not opened."""
        try:
            names = os.listdir(self.results)
        except FileNotFoundError:
            return set()
        return {name[:-5] for name in names if name.endswith(".json") and name[0] != "."}

    def save(self, record: Record) -> bool:
        """Write the result of a trial, unless it has one already.

        Returns:
            Whether this record is now the result of the trial.

        Raises:
            OSError: the file cannot be written, for example because the disk is full. The trial
                then has no result.
        """
        return write_new(self.result(record["key"]), json.dumps(record) + "\n")

    def read(self, key: str) -> Record | None:
        """The result of a trial; None if there is none.

        Warns:
            UserWarning: the file is broken; it is moved to ``quarantine/``.
        """
        name = f"{self.root}/results/{key}.json"
        try:
            content = read_bytes(name)
        except FileNotFoundError:
            return None
        try:
            record = from_json(content)
        except ValueError:
            reason = "it is not complete JSON"
        else:
            if _is_result(record, key):
                return record  # type: ignore[no-any-return]
            reason = "it is not a result of the trial that it is named after"
        target = self.quarantine(Path(name))
        warnings.warn(f"{name}: {reason}; moved to {target}", stacklevel=2)
        return None

    def quarantine(self, path: Path) -> Path:
        """Move a broken file to ``quarantine/`` and return where it is now.

        Files that were moved there before are kept.
        """
        folder = self.root / "quarantine"
        folder.mkdir(exist_ok=True)
        target, n = folder / path.name, 1
        while target.exists():
            target, n = folder / f"{path.stem}.{n}{path.suffix}", n + 1
        try:
            os.replace(path, target)
        except FileNotFoundError:
            pass  # another process has moved it already
        return target

    def records(self) -> Iterator[Record]:
        """Every valid result, sorted by key."""
        for key in sorted(self.finished()):
            if (record := self.read(key)) is not None:
                yield record

    def retire(self, key: str) -> None:
        """Move a result into the directory of its trial, so that the trial is run again."""
        folder = self.trial(key)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("result-*.json"))) + 1
        try:
            os.rename(self.result(key), folder / f"result-{number:04d}.json")
        except FileNotFoundError:
            pass  # another process has moved it already

    def set_trials(self, trials: Mapping[str, Config], by: str = "trials") -> None:
        """Write down which trials are asked for.

        Args:
            trials: configs by key.
            by: what asks for them: "trials" for the spec, "refined-1" ... for a refinement.
        """
        lines = (json.dumps({"key": key, "config": c}) for key, c in trials.items())
        write_over(self.root / f"{by}.jsonl", "".join(f"{line}\n" for line in lines))

    def trials(self) -> dict[str, Config]:
        """The trials that the spec and its refinements ask for: configs by key."""
        found: dict[str, Config] = {}
        for path in [self.root / "trials.jsonl", *sorted(self.root.glob("refined-*.jsonl"))]:
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                rows = from_json(f"[{','.join(lines)}]")
                found |= {row["key"]: row["config"] for row in rows}
        return found

    def rounds(self) -> int:
        """Number of rounds of refinement that were added."""
        return len(list(self.root.glob("refined-*.jsonl")))

    def info(self) -> dict[str, Any]:
        """The content of ``run.json``: training function, versions, commit."""
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
    """Open the store of an existing sweep.

    Raises:
        FileNotFoundError: the directory holds no sweep. The message lists those next to it that do.
    """
    store = Store(Path(directory))
    if store.results.is_dir():
        return store
    parent = store.root.parent
    found = sorted(p.parent for p in parent.glob("*/results")) if parent.is_dir() else []
    hint = f"; sweeps there: {', '.join(map(str, found))}" if found else ""
    raise FileNotFoundError(f"{store.root} holds no sweep (no folder results/){hint}")


def load(directory: str | Path) -> pd.DataFrame:
    """The finished trials of a sweep as a table.

    Args:
        directory: the directory of the sweep, ``runs/<name>``.

    Returns:
        One row per finished trial: ``key``, ``status`` ("ok", "diverged", "failed", or "stopped"
        by successive halving), ``error`` (text or None), one column per config leaf, one per
        metric (NaN where a trial lacks it), and ``seconds``. A metric with the name of a config
        leaf gets the prefix ``metric.``.

    Raises:
        FileNotFoundError: the directory holds no sweep.

    Warns:
        UserWarning: a result file is broken; it is moved to ``quarantine/``.
    """
    return frame(open_store(directory).records())


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Results as the table that `load` describes."""
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
