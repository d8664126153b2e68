"""Bringing the results of several directories together, such as those of the shares of a sweep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paramz.sweeps.spec.command import is_command, shown
from paramz.sweeps.store.files import write_over
from paramz.sweeps.store.record import Record
from paramz.sweeps.store.store import Store


@dataclass(frozen=True)
class Merged:
    """What was brought together.

    Attributes:
        taken: number of results that the target did not have.
        better: number of results that replaced a failure of the target, which was put aside.
        same: number of results that both had alike.
        kept: keys of trials with different results, of which the target kept its own.
    """

    taken: int
    better: int
    same: int
    kept: tuple[str, ...]


def merge(target: Store, sources: Iterable[Store]) -> Merged:
    """Copy what other directories of the same sweep contain into one; nothing is taken from them.

    A target that is new becomes a directory like theirs, of the whole sweep. Whatever was copied
    before is not copied again, so that an interrupted merge is repeated by the same command.

    Args:
        target: where everything is brought together.
        sources: directories of the same training function.

    Raises:
        ValueError: a source holds results of another training function; nothing was copied.
        OSError: a file cannot be read or written; what was copied is kept.
    """
    sources = list(sources)
    _check_functions([target, *sources])
    target.create()
    counts = {"taken": 0, "better": 0, "same": 0}
    kept = []
    for source in sources:
        _copy_lists(target, source)
        for key in sorted(source.finished()):
            record = source.read(key)
            if record is None:
                continue
            done = _take(target, source, record)
            if done == "kept":
                kept.append(key)
            else:
                counts[done] += 1
        _copy_unfinished(target, source)
    return Merged(**counts, kept=tuple(kept))


def _check_functions(stores: list[Store]) -> None:
    known: dict[str, Path] = {}
    for store in stores:
        train = store.info().get("train")
        if isinstance(train, str):
            module, _, name = train.rpartition(":")
            short = shown(train) if is_command(train) else f"{Path(module).name}:{name}"
            known.setdefault(short, store.root)
    if len(known) > 1:
        said = ", ".join(f"{root} of {function}" for function, root in known.items())
        raise ValueError(f"these are results of different training functions: {said}")


def _copy_lists(target: Store, source: Store) -> None:
    """Copy spec and provenance if the target has none, and join the lists of trials."""
    for name in ("spec.yaml", "run.json"):
        if not (target.root / name).exists() and (source.root / name).exists():
            text = (source.root / name).read_text(encoding="utf-8")
            if name == "run.json":
                text = json.dumps(source.info() | {"shard": None}, indent=2) + "\n"
            write_over(target.root / name, text)
    for path in [source.root / "trials.jsonl", *source.root.glob("refined-*.jsonl")]:
        if path.exists():
            theirs = source.trials_of(path.stem)
            mine = target.trials_of(path.stem)
            if theirs.keys() - mine.keys():
                target.set_trials(mine | theirs, path.stem)


def _take(target: Store, source: Store, record: Record) -> str:
    """Take one result over; what became of it."""
    key, mine = record["key"], target.read(record["key"])
    what = "taken"
    if mine is not None:
        if (mine["status"], mine["metrics"]) == (record["status"], record["metrics"]):
            return "same"
        if mine["status"] != "failed" or record["status"] == "failed":
            return "kept"
        target.retire(key, afresh=True)  # log, history and files are those of the other result
        what = "better"
    _copy_folder(source.trial(key), target.trial(key))
    target.save(record)
    return what


def _copy_unfinished(target: Store, source: Store) -> None:
    """Copy what trials without a result have saved, so that they go on from there."""
    done = target.finished()
    trials = source.root / "trials"
    for folder in sorted(trials.iterdir()) if trials.is_dir() else ():
        if folder.name not in done and not target.trial(folder.name).exists():
            _copy_folder(folder, target.trial(folder.name))


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder; files that the target has already stay as they are."""
    if not source.is_dir():
        return
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        elif path.is_file() and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            draft = there.with_name(f".{there.name}.merge.tmp")
            shutil.copy2(path, draft)
            draft.replace(there)
