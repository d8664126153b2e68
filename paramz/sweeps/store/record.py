"""The result of a trial as it is stored, and what tells it from what only looks like one."""

from __future__ import annotations

import math
from typing import Any

Record = dict[str, Any]

FORMAT = 1
STATUSES = ("ok", "diverged", "stopped", "failed")
_FIELDS = {"key", "status", "error", "config", "metrics", "seconds"}
_NOT_FINITE = ("nan", "inf", "-inf")  # as they are stored: JSON has no such numbers


class LaterFormat(ValueError):
    """A result that a later version of paramz wrote; it is right, but cannot be read here."""


def check_record(record: Any, key: str) -> None:
    """Refuse what is not the result of a trial.

    Args:
        record: what the file of the result holds.
        key: the key of the trial, after which the file is named.

    Raises:
        LaterFormat: it is of a later version.
        ValueError: it is no result of this trial; the message says what is wrong.
    """
    if not isinstance(record, dict):
        raise ValueError("it is not a result of the trial that it is named after")
    version = record.get("format", FORMAT)
    if isinstance(version, int) and version > FORMAT:
        raise LaterFormat(f"it has format {version} of a later version; this one reads {FORMAT}")
    if not record.keys() >= _FIELDS or record["key"] != key or record["status"] not in STATUSES:
        raise ValueError("it is not a result of the trial that it is named after")
    if version != FORMAT or isinstance(version, bool):
        raise ValueError(f"its format is {version!r}")
    if not (record["error"] is None or isinstance(record["error"], str)):
        raise ValueError("its error is not a text")
    if not isinstance(record["config"], dict):
        raise ValueError("its config is not a mapping")
    for name in ("seconds", "finished"):
        if name in record and not (_is_number(record[name]) and math.isfinite(record[name])):
            raise ValueError(f"its {name} are {record[name]!r}, which is no number")
    if not isinstance(record["metrics"], dict):
        raise ValueError("its metrics are not a mapping")
    for name, value in record["metrics"].items():
        if not _is_number(value) and value not in _NOT_FINITE:
            raise ValueError(f"its metric {name!r} is {value!r}, which is no number")
    code = record.get("code")
    if code is not None and not isinstance(code, dict):
        raise ValueError("its code is not a mapping")
    source = (code or {}).get("source")
    if source is not None and not isinstance(source, str):
        raise ValueError(f"the hash of its code is {source!r}, which is no text")


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
