"""Finding what can be deleted from the directory of a sweep."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import holder
from paramz.sweeps.store.store import Store

_KEPT = ("attempt-", "result-", "log.", "history.jsonl", "rows.json", ".code.json")
_DRAFT_AGE = 3600.0  # seconds after which the process that was writing a draft must be dead


@dataclass(frozen=True)
class Prunable:
    """Something that can be deleted.

    Attributes:
        path: a file or a folder.
        why: what it is, for the user to decide.
    """

    path: Path
    why: str

    def size(self) -> int:
        """Its size in bytes."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if file.is_file())

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def prunable(store: Store, *, checkpoints: bool = False) -> Iterator[Prunable]:
    """What the directory of a sweep contains that the sweep does not need.

    Args:
        store: the directory of the sweep.
        checkpoints: include the files that trials with status "ok" have saved, except their logs
            and the rows of a coordinate check.

    Raises:
        ValueError: it is not known what the sweep asks for, because a file that says so is
            missing, empty or broken.

    Yields:
        Trials that the sweep no longer asks for, quarantined files, and drafts whose writer died.
    """
    asked = _asked(store)
    for key in sorted(store.finished() - asked.keys()):
        yield Prunable(store.result(key), "result that the sweep no longer asks for")
    trials = store.root / "trials"
    for folder in sorted(trials.iterdir()) if trials.is_dir() else ():
        # A job that was submitted before the spec changed may still be at it.
        if folder.name not in asked and holder(folder) is None:
            yield Prunable(folder, "trial that the sweep no longer asks for")
    if (store.root / "quarantine").is_dir():
        yield Prunable(store.root / "quarantine", "broken files")
    for draft in sorted(store.results.glob(".*.tmp")):
        if time.time() - draft.stat().st_mtime > _DRAFT_AGE:
            yield Prunable(draft, "draft of a writer that died")
    if checkpoints:
        yield from _checkpoints(store)


def _asked(store: Store) -> dict[str, Config]:
    """The trials that the sweep asks for, if that is known for certain."""
    numbers = sorted(int(path.stem[8:]) for path in store.root.glob("refined-[0-9]*.jsonl"))
    missing = [n for n in range(1, max(numbers, default=0)) if n not in numbers]
    asked = store.wanted()
    if not asked or missing:
        name = f"refined-{missing[0]}.jsonl" if missing else "trials.jsonl"
        what = "empty" if asked is not None and not missing else "missing"
        raise ValueError(
            f"{store.root / name} is {what}, so that it is not known which trials the sweep asks "
            "for; nothing can be pruned until the command that ran the sweep has written it again"
        )
    return asked


def _checkpoints(store: Store) -> Iterator[Prunable]:
    for record in store.records():
        folder = store.trial(record["key"])
        if record["status"] == "ok" and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if not path.name.startswith(_KEPT):
                    yield Prunable(path, "saved by a finished trial")
