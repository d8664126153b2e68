"""Whether a run has anything to look at, which is said before anything is fitted or drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer


def require_finished(df: Any, folder: Path) -> None:
    """Exit with 1, saying why, if no trial of a run has ended well.

    Args:
        df: the table of its trials, with a column ``status``.
        folder: the run's.
    """
    if "status" not in df or (df["status"] == "ok").any():
        return
    if not len(df):
        said = f"{folder} has no result yet: paramz status {folder} says how far it is"
    else:
        counts = ", ".join(f"{n} {name}" for name, n in df["status"].value_counts().items())
        said = f"{folder}: no trial has ended well: {counts}"
        errors = df["error"].dropna() if "error" in df else df["status"].iloc[:0]
        if len(errors):
            said += f", most often with: {errors.value_counts().index[0]}"
        said += f". paramz logs {folder} shows them, paramz retry {folder} runs them again"
    typer.echo(f"error: {said}", err=True)
    raise typer.Exit(1)


def require_columns(df: Any, folder: Path, asked: Sequence[str | None]) -> None:
    """Raise if a column that the user has named is not there.

    Raises:
        KeyError: it is not; the message lists those there are.
    """
    missing = [name for name in asked if name is not None and name not in df]
    if missing:
        raise KeyError(
            f"{folder} has no column {', '.join(map(repr, missing))}; it has: "
            f"{', '.join(map(str, df.columns))}"
        )
