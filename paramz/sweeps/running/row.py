"""A row of a command's metrics: numbers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramz.sweeps.spec.config import leaves

Row = dict[str, float]


def numbers(row: Mapping[Any, Any]) -> Row:
    """The numbers of a row; what is none is left out, and nested values get dotted names.

    >>> numbers({"loss": "nan", "note": "x", "ok": True, "train": {"loss": 2}})
    {'loss': nan, 'ok': 1.0, 'train.loss': 2.0}
    """
    found = {}
    for name, value in leaves(row).items():
        try:
            found[str(name).strip()] = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
    return found
