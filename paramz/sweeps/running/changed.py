"""Results of other code than there is now, or another limit: found, told, repeated or accepted."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from paramz.sweeps.running.wording import counted
from paramz.sweeps.spec.code import Code, source_at, targets_of
from paramz.sweeps.spec.command import HISTORY, Command, is_command, shown
from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.target import present_name
from paramz.sweeps.store.attempt import holder
from paramz.sweeps.store.files import read_json, write_over
from paramz.sweeps.store.record import Record
from paramz.sweeps.store.store import Store

Changed = Literal["tell", "rerun", "accept"]
"""What happens to results of other code: they are told of, put aside to run again, or accepted."""

_ACCEPTED = "accepted.json"  # hashes of sources whose results count as those of one code


# In the directory of a trial: the hashes of the sources that have a part in what is saved there.
_BEGUN = ".code.json"


def of_other_code(store: Store, train: str, records: Iterable[Record]) -> list[str]:
    """The keys of results of other code; those that say nothing of their code are not among them.

    Args:
        store: the directory of the sweep, which knows what was accepted.
        train: the training function, of which the code is that of now.
        records: the results to look at.
    """
    other = _other(store, train)
    return [
        record["key"]
        for record in records
        if other((record.get("code") or {}).get("source"), record["config"])
    ]


def begun_by_other_code(store: Store, train: str, trials: Mapping[str, Config]) -> list[str]:
    """The keys of trials without a result that would go on from what other code has saved.

    Args:
        store: the directory of the sweep.
        train: the training function.
        trials: those without a result.
    """
    try:
        started = set(os.listdir(store.root / "trials"))
    except OSError:
        started = set()
    other = _other(store, train)
    return [
        key
        for key, config in trials.items()
        if key in started
        and any(other(source, config) for source in _begun(store.trial(key), train))
        and holder(store.trial(key)) is None
    ]


def begin(folder: Path, train: str, code: Code) -> Code:
    """Write down which code an attempt at a trial runs, beside what that will save.

    Args:
        folder: the directory of the trial.
        train: the training function.
        code: that of now.

    Returns:
        the code of a result of this attempt: of one that goes on from what other code has saved,
        the hashes of both, so that it counts as one of other code.
    """
    if code["source"] is None:
        return code
    before = _begun(folder, train)
    sources = list(dict.fromkeys([*before, code["source"]]))
    if sources != before:
        with suppress(OSError):  # the disk is full, as the trial will see
            (folder / _BEGUN).write_text(json.dumps({"sources": sources}) + "\n", encoding="utf-8")
    return {**code, "source": "+".join(sources)}


def _begun(folder: Path, train: str) -> list[str]:
    """The hashes of the codes that have a part in what a trial has saved; none if that is nothing.

    A function that saves nothing begins at its start, whatever ran before, and so does a command
    without words to resume by.
    """
    sources = (read_json(folder / _BEGUN) or {}).get("sources")
    afresh = is_command(train) and not Command.parse(train).resume
    if afresh or not isinstance(sources, list) or not _has_saved(folder):
        return []
    return [source for source in sources if isinstance(source, str)]


def accept(store: Store, train: str, records: Iterable[Record]) -> None:
    """Let all these results count as results of the code that the training function has now."""
    present = _present(train)
    known = _accepted(store) | {present({})}
    for record in records:
        known |= {*_parts((record.get("code") or {}).get("source")), present(record["config"])}
    write_over(store.root / _ACCEPTED, json.dumps({"sources": sorted(filter(None, known))}) + "\n")


def _present(train: str) -> Callable[[Mapping[str, Any]], str | None]:
    """The hash of the sources at a config, which may name functions of its own."""
    at = cache(source_at)
    return lambda config: at(targets_of(train, config))


def _other(store: Store, train: str) -> Callable[[Any, Config], bool]:
    """Whether a hash is that of other code than a config has now."""
    accepted, present = _accepted(store), _present(train)
    alone = present({})  # all there is to it, unless a config names a function

    def other(source: Any, config: Config) -> bool:
        if not isinstance(source, str) or source == alone:
            return False
        now = present(config)
        same = {now} | (accepted if now in accepted else set())
        return not same.issuperset(_parts(source))

    return other


def _parts(source: str | None) -> list[str]:
    """The hashes of the codes that have a part in a result."""
    return source.split("+") if source else []


def _has_saved(folder: Path) -> bool:
    """Whether there is anything in the directory of a trial that its function has put there."""
    names = (path.name for path in folder.iterdir())
    ours = ("attempt-", "result-", "before-", "log.", ".", HISTORY)
    return any(not name.startswith(ours) for name in names)


def sentence(number: int, train: str, source: str | None) -> str:
    """What a user is told about results of other code."""
    are = "result is" if number == 1 else "results are"
    return (
        f"{number} {are} of other code than {shown(train)} is now (its sources have the hash "
        f"{source}); "
        f"--rerun changed runs {counted(number, 'trial')} again, --accept keeps what there is"
    )


def stopped_below(limit: float | None, records: Iterable[Record]) -> int:
    """How many results diverged by a limit of the loss that is higher now, or gone.

    Args:
        limit: the limit of the loss now; None for none.
        records: the results.
    """
    found = 0
    for record in records:
        match = re.match(r"loss (\S+)", record["error"] or "")
        if record["status"] == "diverged" and match:
            loss = float(match[1])
            found += math.isfinite(loss) and (limit is None or loss < limit)
    return found


def sentence_of_limit(number: int, limit: float | None) -> str:
    """What a user is told about results that a lower limit of the loss has ended."""
    now = "has none now" if limit is None else f"has {limit:g} now"
    return (
        f"{counted(number, 'trial')} diverged by a lower loss_limit than the spec, which {now}; "
        "--retry diverged runs them again"
    )


def sentence_of_begun(number: int, train: str) -> str:
    """What a user is told about trials that go on from what other code has saved."""
    them = "trial goes on from what it" if number == 1 else "trials go on from what they"
    return (
        f"{number} unfinished {them} saved under other code than {shown(train)} is now, so that "
        "the result is of both; --rerun changed begins such trials afresh"
    )


def check_function(store: Store, train: str, code: Code) -> None:
    """Refuse the directory of another training function; one whose file has moved is the same.

    A command with other words is other code of the same sweep, of which `sentence` tells.

    Raises:
        ValueError: the directory holds results of a function of another name or file, or the file
            of before is still there and has other content.
    """
    info = store.info()
    before = info.get("train")
    if not isinstance(before, str) or present_name(before) == train:
        return
    if is_command(before) and is_command(train):
        return
    if info.get("source") is not None and info["source"] == code["source"]:
        same = _name(before) == _name(train)
    else:
        file = before.rpartition(":")[0]
        gone = file.endswith(".py") and not Path(file).exists()
        same = gone and _name(before) == _name(train) and Path(file).name == _file(train)
    if not same:
        raise ValueError(
            f"{store.root} holds results of {shown(before)}, this sweep trains {shown(train)}; "
            "choose another directory (--out), or --accept them as results of this function"
        )


def _accepted(store: Store) -> set[str]:
    sources = (read_json(store.root / _ACCEPTED) or {}).get("sources")
    return {s for s in sources if isinstance(s, str)} if isinstance(sources, list) else set()


def _name(target: str) -> str:
    return target.rpartition(":")[2]


def _file(target: str) -> str:
    return Path(target.rpartition(":")[0]).name
