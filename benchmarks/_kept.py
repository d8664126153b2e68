"""Tables of results that are made row by row, so that a run that is cut keeps what it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd


def keep(row: dict[str, Any], results: Path, keys: Sequence[str]) -> None:
    """Put a row into a file in place of an older one of the same check, in order of its keys."""
    rows = pd.DataFrame([row])
    if results.exists():
        old = pd.read_csv(results)
        same = (old[list(keys)] == rows[list(keys)].iloc[0]).all(axis=1)
        rows = pd.concat([old[~same], rows]).sort_values(list(keys))
    rows.to_csv(results, index=False)
