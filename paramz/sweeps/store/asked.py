"""The keys of the trials that a sweep asks for, found without reading their configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paramz.sweeps.store.keys import KEY, distinct
from paramz.sweeps.store.store import Store

_BEFORE = np.frombuffer(b'{"key": "', np.uint8)  # what every line begins with, as it is written
_DIGITS = np.dtype(KEY).itemsize
_WIDTH = len(_BEFORE) + _DIGITS + 1  # bytes up to the quotation mark after the key
_CHUNK = 1 << 25  # bytes


def asked_keys(store: Store) -> NDArray[Any] | None:
    """The keys, sorted; None if the file that says what is asked for is missing.

    Raises:
        ValueError: a file that says so is broken; the message gives file and line.
    """
    first = store.root / "trials.jsonl"
    if not first.exists():
        return None
    parts = []
    for path in [first, *store.root.glob("refined-*.jsonl")]:
        found = _quickly(path)
        if found is None:
            return distinct(np.array(list(store.trials()), KEY))
        parts += found
    return distinct(np.concatenate([*parts, np.empty(0, KEY)]))


def _quickly(path: Path) -> list[NDArray[Any]] | None:
    """The keys of a file whose lines all begin as they are written; else None."""
    parts, rest = [], b""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            text = np.frombuffer(whole + newline, np.uint8)
            ends = np.flatnonzero(text == ord("\n"))
            starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
            if not len(ends):
                continue
            if (ends - starts).min() < _WIDTH:
                return None
            begins = np.lib.stride_tricks.sliding_window_view(text, _WIDTH)[starts]
            if (begins[:, : len(_BEFORE)] != _BEFORE).any() or (begins[:, -1] != ord('"')).any():
                return None
            parts.append(np.ascontiguousarray(begins[:, len(_BEFORE) : -1]).view(KEY).ravel())
    return None if rest else parts
