"""A result as one row of an index: numbers only, so that a million of them fit into memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from paramz.sweeps.store.keys import KEY
from paramz.sweeps.store.log import Identity
from paramz.sweeps.store.record import STATUSES, Record

ROW = np.dtype(
    [
        ("key", KEY),
        ("status", "u1"),
        ("finished", "f8"),
        ("size", "i8"),
        ("changed", "i8"),
        ("source", "u4"),  # number of the hash of its code
        ("kind", "u4"),  # number of the kind of its error
        ("log", "u4"),
        ("start", "i8"),
        ("length", "i4"),
    ]
)
NO_LINE = np.iinfo(np.uint32).max  # the log of a result whose line could not be appended


class Numbers:
    """The numbers of texts that many results share: hashes of code, and kinds of errors."""

    def __init__(self, sources: list[str], kinds: list[str]) -> None:
        self._sources, self._kinds = sources, kinds  # both grow
        self._source = {text: number for number, text in enumerate(sources)}
        self._kind = {kind_of(text): number for number, text in enumerate(kinds)}

    def row(
        self, record: Record, identity: Identity, place: tuple[int, int, int]
    ) -> tuple[Any, ...]:
        """The row of a result."""
        source = (record.get("code") or {}).get("source") or ""
        if source not in self._source:
            self._source[source] = len(self._sources)
            self._sources.append(source)
        error = record["error"] or ""
        kind = kind_of(error) if record["status"] == "failed" else ""
        if kind not in self._kind:
            self._kind[kind] = len(self._kinds)
            self._kinds.append(error if kind else "")
        return (
            record["key"].encode(),
            STATUSES.index(record["status"]),
            record.get("finished", 0.0),
            *identity,
            self._source[source],
            self._kind[kind],
            *place,
        )


def kind_of(error: str) -> str:
    """What errors of one kind have in common: all but their numbers.

    >>> kind_of("loss 1.25 at step 17") == kind_of("loss 3.5 at step 4")
    True
    """
    return re.sub(r"\d+", "#", error)[:120]
