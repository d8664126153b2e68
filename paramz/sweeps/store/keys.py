"""Sets of keys as sorted arrays; at a million keys numpy's own functions of sets take seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = "S16"


def distinct(keys: NDArray[Any]) -> NDArray[Any]:
    """The keys, sorted, each once.

    >>> distinct(np.array([b"b", b"a", b"b"]))
    array([b'a', b'b'], dtype='|S1')
    """
    ordered = np.sort(keys)
    return ordered[~_repeats(ordered)]


def places_of_each(keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each key stands first, in the order of the keys, and which of those stand again.

    >>> places_of_each(np.array([b"b", b"a", b"b"]))
    (array([1, 0]), array([False,  True]))
    """
    places = np.argsort(keys, kind="stable")
    repeats = _repeats(keys[places])
    first = ~repeats
    return places[first], np.append(repeats[1:], False)[first]


def among(keys: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of some keys are among others, which are sorted.

    >>> among(np.array([b"b", b"c"]), np.array([b"a", b"b"]))
    array([ True, False])
    """
    if np.array_equal(keys, others):
        return np.ones(len(keys), bool)
    if not len(others):
        return np.zeros(len(keys), bool)
    places = others.searchsorted(keys).clip(max=len(others) - 1)
    return np.asarray(others[places] == keys)


def _repeats(ordered: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of some sorted keys equal the one before them."""
    found = np.zeros(len(ordered), bool)
    found[1:] = ordered[1:] == ordered[:-1]
    return found
