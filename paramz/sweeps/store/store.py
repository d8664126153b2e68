"""The store of a sweep: one JSON file per finished trial, named by the key of its config.

::

    runs/<name>/spec.yaml           the spec as it was last run
    runs/<name>/run.json            training function, versions, commit
    runs/<name>/trials.jsonl        key and config of every trial of the spec
    runs/<name>/refined-<n>.jsonl   the same for the trials that the n-th refinement added; 0 is for
                                    those of an earlier spec that this one still asks for
    runs/<name>/results/<key>.json  the result of a finished trial
    runs/<name>/trials/<key>/       attempts, log.txt, history.jsonl, what the function saves; in
                                    before-<n>/ what it had saved before it was begun afresh
    runs/<name>/index/              the results once more, to be read fast; made again if deleted
    runs/<name>/quarantine/         broken files; their trials count as not finished
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import last_attempt
from paramz.sweeps.store.files import read_bytes, read_json, require_links, write_new, write_over
from paramz.sweeps.store.log import append, identity_of, result_line, retired_line
from paramz.sweeps.store.record import LaterFormat, Record, check_record

# What stays in the directory of a trial that begins afresh: paramz's own account of it.
_ACCOUNT = re.compile(r"(attempt|result)-\d+\.json|before-\d+")


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
        """Create the directories that are missing, with the permissions of the user's umask.

        Raises:
            OSError: they cannot be created, or their file system has no hard links.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        require_links(self.results)
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
        path = self.result(record["key"])
        if not write_new(path, json.dumps(record) + "\n"):
            return False
        if identity := identity_of(path):
            append(self.root, [result_line(record, identity)])
        return True

    def read(self, key: str) -> Record | None:
        """The result of a trial; None if there is none.

        Warns:
            UserWarning: the file is broken. It is moved to ``quarantine/`` if the user may do
                that. If it is of a later version, it is left where it is.
        """
        name = f"{self.root}/results/{key}.json"
        try:
            record = from_json(read_bytes(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            warnings.warn(f"{name}: cannot be read: {error.strerror}", stacklevel=2)
            return None
        except ValueError:
            reason = "it is not complete JSON"
        else:
            try:
                check_record(record, key)
                return record  # type: ignore[no-any-return]
            except LaterFormat as error:
                warnings.warn(f"{name}: {error}; left where it is", stacklevel=2)
                return None
            except ValueError as error:
                reason = str(error)
        try:
            done = f"moved to {self.quarantine(Path(name))}"
        except OSError as error:
            done = f"it cannot be moved to quarantine/ ({error.strerror}) and counts as missing"
        warnings.warn(f"{name}: {reason}; {done}", stacklevel=2)
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
        """Every valid result without its traceback, sorted by key; see `paramz.sweeps.store.index`.

        Warns:
            UserWarning: as for `read`.
        """
        from paramz.sweeps.store.index import read_index  # numpy takes a while to import

        yield from read_index(self.root, self.read).records(self.root, self.read)

    def retire(self, key: str, *, afresh: bool = False) -> None:
        """Move a result into the directory of its trial, so that the trial is run again.

        Args:
            key: of the trial.
            afresh: the trial begins anew, see `set_aside`; otherwise it goes on from what it has
                saved.
        """
        folder = self.trial(key)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("result-*.json"))) + 1
        identity = identity_of(self.result(key))
        if afresh and identity is not None:
            self.set_aside(key)  # before the result, or an interruption would leave it to be read
        try:
            os.rename(self.result(key), folder / f"result-{number:04d}.json")
        except FileNotFoundError:
            return  # another process has moved it already
        if identity is not None:
            append(self.root, [retired_line(key, identity)])

    def set_aside(self, key: str) -> None:
        """Move what a trial has saved, its log and its history into a folder of its own there.

        Its next attempt finds no checkpoint to go on from. The folder is called ``before-<n>``
        after the last attempt, by which `paramz.sweeps.Trial.resumed` knows.
        """
        folder = self.trial(key)
        before = folder / f"before-{last_attempt(folder):04d}"
        before.mkdir(exist_ok=True)
        for path in list(folder.iterdir()):
            if not _ACCOUNT.fullmatch(path.name):
                with suppress(FileNotFoundError):  # such as the draft of another process
                    path.rename(before / path.name)

    def set_trials(self, trials: Mapping[str, Config], by: str = "trials") -> None:
        """Write down which trials are asked for.

        Args:
            trials: configs by key.
            by: what asks for them: "trials" for the spec, "refined-1" ... for a refinement.
        """
        lines = (json.dumps({"key": key, "config": c}) for key, c in trials.items())
        write_over(self.root / f"{by}.jsonl", "".join(f"{line}\n" for line in lines))

    def trials(self) -> dict[str, Config]:
        """The trials that the spec and its refinements ask for: configs by key.

        Raises:
            ValueError: a file that says so is broken; the message gives file and line.
        """
        found: dict[str, Config] = {}
        for path in [self.root / "trials.jsonl", *self.refinements()]:
            found |= self.trials_of(path.stem)
        return found

    def trials_of(self, by: str) -> dict[str, Config]:
        """The trials that the spec ("trials") or one refinement ("refined-1" ...) asks for.

        Raises:
            ValueError: as for `trials`.
        """
        path = self.root / f"{by}.jsonl"
        return _read_trials(path) if path.exists() else {}

    def wanted(self) -> dict[str, Config] | None:
        """The trials that the sweep asks for; None if the file that says so is missing.

        Raises:
            ValueError: as for `trials`.
        """
        return self.trials() if (self.root / "trials.jsonl").exists() else None

    def rounds(self) -> int:
        """Number of rounds of refinement that were added."""
        return sum(path.stem != "refined-0" for path in self.refinements())

    def refinements(self) -> list[Path]:
        """The files of the trials that refinement has added."""
        return sorted(self.root.glob("refined-*.jsonl"))

    def info(self) -> dict[str, Any]:
        """The content of ``run.json``: training function, versions, commit."""
        return read_json(self.root / "run.json") or {}


def _read_trials(path: Path) -> dict[str, Config]:
    content = path.read_bytes()
    try:
        rows = from_json(b"[" + b",".join(content.splitlines()) + b"]")
        return {row["key"]: row["config"] for row in rows}
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"{path}:{_broken_line(content)}: not a trial with key and config; the command that "
            "ran the sweep writes this file again"
        ) from None


def _broken_line(content: bytes) -> int:
    """The number of the first line that is not a trial."""
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = from_json(line)
            if not (isinstance(row, dict) and row.keys() >= {"key", "config"}):
                return number
        except ValueError:
            return number
    return 1


def open_store(directory: str | Path) -> Store:
    """Open the store of an existing sweep.

    Raises:
        FileNotFoundError: the directory holds no sweep. The message lists those next to it that do.
        PermissionError: the directory may not be read.
    """
    store = Store(Path(directory))
    try:
        os.listdir(store.results)
        return store
    except PermissionError:
        raise PermissionError(f"{store.results} may not be read by you") from None
    except (OSError, ValueError):
        pass
    parent = store.root.parent
    try:
        found = sorted(p.parent for p in parent.glob("*/results"))
    except (OSError, ValueError):
        found = []
    hint = f"; sweeps there: {', '.join(map(str, found))}" if found else ""
    if store.root.suffix in (".yaml", ".yml"):
        usual = Path("runs") / store.root.stem
        hint = f": its results are in a directory, {usual} unless --out named another"
    raise FileNotFoundError(f"{store.root} holds no sweep (no folder results/){hint}")
