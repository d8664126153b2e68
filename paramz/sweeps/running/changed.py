"""Results of other code than the training function has now: found, told, repeated or accepted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from paramz.sweeps.running.wording import counted
from paramz.sweeps.spec.code import Code
from paramz.sweeps.spec.command import is_command, shown
from paramz.sweeps.spec.target import present_name
from paramz.sweeps.store.files import read_json, write_over
from paramz.sweeps.store.record import Record
from paramz.sweeps.store.store import Store

Changed = Literal["tell", "rerun", "accept"]
"""What happens to results of other code: they are told of, put aside to run again, or accepted."""

_ACCEPTED = "accepted.json"  # hashes of sources whose results count as those of one code


def of_other_code(store: Store, code: Code, records: Iterable[Record]) -> list[str]:
    """The keys of results of other code; those that say nothing of their code are not among them.

    Args:
        store: the directory of the sweep, which knows what was accepted.
        code: the code that the training function has now.
        records: the results to look at.
    """
    same = {code["source"]}
    if same & (accepted := _accepted(store)):
        same |= accepted
    sources = ((record["key"], (record.get("code") or {}).get("source")) for record in records)
    return [key for key, source in sources if source is not None and source not in same]


def accept(store: Store, code: Code, records: Iterable[Record]) -> None:
    """Let all these results count as results of the code that the training function has now."""
    sources = {(record.get("code") or {}).get("source") for record in records}
    known = _accepted(store) | sources | {code["source"]}
    write_over(store.root / _ACCEPTED, json.dumps({"sources": sorted(filter(None, known))}) + "\n")


def sentence(number: int, train: str, source: str | None) -> str:
    """What a user is told about results of other code."""
    are = "result is" if number == 1 else "results are"
    return (
        f"{number} {are} of other code than {shown(train)} is now (its sources have the hash "
        f"{source}); "
        f"--rerun changed runs {counted(number, 'trial')} again, --accept keeps what there is"
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
