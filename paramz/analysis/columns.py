"""Columns of a results table, checked once so that no fit meets a string, a zero or a NaN."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def require(df: pd.DataFrame, *names: str, hint: str = "") -> None:
    """Raise when a column is missing, listing those there are.

    Args:
        df: the table.
        *names: of the columns.
        hint: how to say that a column has another name.

    Raises:
        TypeError: the table is no DataFrame.
        KeyError: a name is not a column of the table.
        ValueError: several columns have one of the names.
    """
    if not isinstance(df, pd.DataFrame):
        way_out = "its to_pandas() makes one" if hasattr(df, "to_pandas") else "pd.DataFrame(...)"
        raise TypeError(
            f"the table must be a pandas DataFrame, got {type(df).__module__.partition('.')[0]}'s "
            f"{type(df).__name__}: {way_out}"
        )
    missing = [name for name in names if name not in df.columns]
    if missing:
        have = ", ".join(map(str, df.columns)) or "none: the table is empty"
        raise KeyError(f"no column {', '.join(map(repr, missing))}; the columns are: {have}{hint}")
    for name in names:
        if (count := int((df.columns == name).sum())) > 1:
            raise ValueError(f"{count} columns are called {name!r}: which one is meant? Rename one")


def wide_columns(df: pd.DataFrame, hp: str, loss: str) -> str:
    """What to say of a table that has a column of losses for each value of a hyperparameter.

    Args:
        df: the table.
        hp: the hyperparameter, which is no column.
        loss: what the losses are to be called, which is none either.

    Returns:
        what makes a row of each loss, with what to put in front of it; empty for other tables.

    >>> wide_columns(pd.DataFrame(columns=["width", "0.01", "0.02", "0.04"]), "lr", "loss")[:60]
    ". Columns '0.01', '0.02', '0.04' look like one per lr. A row"
    """
    if hp in df.columns or loss in df.columns:
        return ""
    parts = {column: _AT_END.match(str(column)) for column in df.columns}
    values = {column: float(part["value"]) for column, part in parts.items() if part}
    fronts = {str(column)[: parts[column].start("value")] for column in values}  # type: ignore[union-attr]
    if len(values) < 3 or len(fronts) != 1 or min(values.values()) <= 0:
        return ""
    front = fronts.pop()
    others = [column for column in df.columns if column not in values]
    named = ", ".join(repr(column) for column in [*values][:3])
    strip = f".str.removeprefix({front!r})" if front else ""
    return (
        f". Columns {named} look like one per {hp}. A row per run: long = df.melt({others!r}, "
        f"var_name={hp!r}, value_name={loss!r}); long[{hp!r}] = long[{hp!r}].astype(str){strip}"
        ".astype(float)"
    )


# A number at the end of a column's name, behind nothing or a name such as loss_lr or lr=.
_AT_END = re.compile(r"^(?:.*[^0-9.eE+-])?(?P<value>\d*\.?\d+(?:[eE][+-]?\d+)?)$")


def require_single(df: pd.DataFrame, *names: str, way_out: str) -> None:
    """Raise when rows that should be of different runs or steps cannot be told apart.

    Args:
        df: the table.
        *names: columns whose values together belong to one row only.
        way_out: what to do about it.

    Raises:
        ValueError: two rows have the same values; the message shows two of them.
    """
    twins = df.duplicated(list(names), keep=False)
    if not twins.any():
        return
    first = df[twins].iloc[0]
    value = ", ".join(f"{name} {first[name]}" for name in names)
    raise ValueError(
        f"{int(twins.sum())} rows share {', '.join(names)} with another row ({value}): {way_out}; "
        f"of a run that was resumed the later row counts: df.drop_duplicates({list(names)}, "
        "keep='last')"
    )


def numbers(df: pd.DataFrame, name: str) -> Array:
    """The column as floats; NaN and infinities are let through.

    Args:
        df: the table.
        name: one of its columns.

    Returns:
        the values, shape (rows,).

    Raises:
        ValueError: a value is not a number; the message shows the first one and its row.

    >>> numbers(pd.DataFrame({"loss": ["2.5", 3]}), "loss")
    array([2.5, 3. ])
    """
    require(df, name)
    values = pd.to_numeric(df[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    bad = np.isnan(values) & df[name].notna().to_numpy()
    if bad.any():  # JSON has no word for NaN, and some write it as a text
        bad &= (df[name].astype(str).str.strip().str.lower() != "nan").to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"column {name!r} must hold numbers, but row {df.index.tolist()[row]!r} holds "
            f"{df[name].iloc[row]!r}"
        )
    return values


def in_order(df: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows by increasing number in a column, also where numbers are written as texts.

    >>> in_order(pd.DataFrame({"step": ["10", "9"]}), "step")["step"].tolist()
    ['9', '10']
    """
    return df.iloc[np.argsort(numbers(df, name), kind="stable")]


def positive(df: pd.DataFrame, name: str) -> Array:
    """The column as finite floats above zero: what a logarithm needs.

    Args:
        df: the table.
        name: one of its columns.

    Returns:
        the values, shape (rows,).

    Raises:
        ValueError: a value is missing, not finite or not above zero.
    """
    values = numbers(df, name)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        row = int(np.argmax(bad))
        text = (
            f"column {name!r} must be finite and above zero (its logarithm is taken), but "
            f"{int(bad.sum())} of {len(values)} rows are not; the first is row "
            f"{df.index.tolist()[row]!r} with {values[row]:g}: "
        )
        if np.all((values < 0) & (values > -60)):  # as logarithms of rates are, and no rate is
            own = f"df[{name!r}]"
            raise ValueError(
                f"{text}if they are logarithms, {own} = 10.0 ** {own} (or 2.0 **) makes values"
            )
        raise ValueError(f"{text}drop or correct them")
    return values
