"""The results of a sweep as a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from paramz.sweeps.spec.config import leaves
from paramz.sweeps.store.record import Record
from paramz.sweeps.store.store import open_store

if TYPE_CHECKING:
    import pandas as pd

_FIRST = ("key", "status", "error")
_RESERVED = {*_FIRST, "seconds", "asked"}


def load(directory: str | Path, *, unasked: bool = False) -> pd.DataFrame:
    """The finished trials of a sweep as a table.

    Args:
        directory: the directory of the sweep, ``runs/<name>``.
        unasked: include the results of trials that the sweep no longer asks for, such as those of
            a value that was taken from an axis; a column ``asked`` then tells them apart.

    Returns:
        One row per finished trial: ``key``, ``status`` ("ok", "diverged", "failed", or "stopped"
        by successive halving), ``error`` (text or None), one column per config leaf, one per
        metric (NaN where a trial lacks it), and ``seconds``. A config leaf that is called like
        one of these columns gets the prefix ``config.``, and a metric that is called like one of
        them, or like a config leaf of any trial, the prefix ``metric.``.

    Raises:
        FileNotFoundError: the directory holds no sweep.
        ValueError: the file of the sweep's trials is broken; the message says where.

    Warns:
        UserWarning: a result file is broken; it is moved to ``quarantine/``.
    """
    import pandas as pd

    from paramz.sweeps.store.asked import asked_keys  # numpy takes a while to import

    store = open_store(directory)
    keys = asked_keys(store)
    asked = None if keys is None else {key.decode() for key in keys}
    if not unasked:
        return frame(r for r in store.records() if asked is None or r["key"] in asked)
    table = frame(store.records())
    marks = [asked is None or key in asked for key in table["key"]]
    return table.assign(asked=pd.Series(marks, dtype=bool, index=table.index))


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Results as the table that `load` describes."""
    import pandas as pd

    rows = [(record, leaves(record["config"])) for record in records]
    named = {name for _, flat in rows for name in flat}
    measured = {name for record, _ in rows for name in record["metrics"]}
    taken = set(_RESERVED)
    of_config = {name: _free("config", name, taken, named - {name}) for name in sorted(named)}
    taken |= set(of_config.values())
    of_metric = {name: _free("metric", name, taken, measured - {name}) for name in sorted(measured)}
    table = pd.DataFrame(
        [
            {field: record[field] for field in _FIRST}
            | {of_config[name]: value for name, value in flat.items()}
            | {of_metric[name]: float(value) for name, value in record["metrics"].items()}
            for record, flat in rows
        ]
    )
    if not rows:
        table = pd.DataFrame(columns=[*_FIRST, "loss"])
    return table.assign(seconds=[record["seconds"] for record, _ in rows])


def _free(prefix: str, name: str, taken: set[str], others: set[str]) -> str:
    """The name of a column that no other column has."""
    column = name
    while column in taken or (column != name and column in others):
        column = f"{prefix}.{column}"
    return column
