"""What goes into a law and comes out of it as text: tables, sentences, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paramz.analysis.columns import positive
from paramz.analysis.counts import count_label


def as_table(data: pd.DataFrame | Mapping[str, Sequence[float] | float]) -> pd.DataFrame:
    """Columns given as a table, as lists or as numbers, as a table."""
    if isinstance(data, pd.DataFrame):
        return data
    return pd.DataFrame({k: np.atleast_1d(np.asarray(v, dtype=float)) for k, v in data.items()})


def params_in_words(params: pd.Series, bounds: pd.DataFrame | None) -> str:
    """The parameters, a line each, with their 95 % interval where there is one."""
    if bounds is None:
        return str(params.to_string(float_format=lambda v: f"{v:.5g}"))
    table = pd.DataFrame({"value": params}).join(bounds)
    table = table.rename(columns={"lo": "2.5%", "hi": "97.5%"})
    return table.to_string(float_format=lambda v: f"{v:.5g}")


def held_out_in_words(errors: pd.DataFrame) -> list[str]:
    """A sentence per row of `LawFit.holdout_error`."""
    return [
        f"held out {row}: {held['actual']:.4f}, predicted {held['mean']:.4f}"
        + (f" [{held['lo']:.4f}, {held['hi']:.4f}]" if pd.notna(held["lo"]) else "")
        + f", error {held['error']:+.2%}"
        for row, held in errors.iterrows()
    ]


def ahead_in_words(ahead: pd.DataFrame, points: pd.DataFrame, scale: str) -> list[str]:
    """A sentence per row ``scale, mean, lo, hi`` of what a law through the points predicts."""
    out = []
    for _, row in ahead.iterrows():
        where = f"{scale} {count_label(row['scale'])}"
        if row["scale"] > points["scale"].max() and row["mean"] > points["loss"].max():
            out.append(f"{where}: no prediction, for the fitted loss rises with {scale}")
            continue
        top = f"{row['hi']:.5g}" if row["hi"] < 10 * row["mean"] else "no bound"
        out.append(f"{where}: loss {row['mean']:.5g} (95% {row['lo']:.5g} to {top})")
    return out


def saved_bounds(bounds: pd.DataFrame) -> dict[str, list[float | None]]:
    """Intervals for JSON, by parameter."""
    return {str(k): [finite(r["lo"]), finite(r["hi"])] for k, r in bounds.iterrows()}


def saved_rows(rows: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Columns and index of a table for JSON."""
    index = [i if isinstance(i, str) else int(i) for i in rows.index]
    return {"index": index} | {name: positive(rows, name).tolist() for name in names}


def finite(value: float) -> float | None:
    """The number, or None where JSON has none for it.

    >>> finite(1.5), finite(float("inf"))
    (1.5, None)
    """
    return float(value) if np.isfinite(value) else None
