"""How runs ended, in the words of a sweep, whoever wrote the table."""

from __future__ import annotations

import re

import pandas as pd

from paramz.analysis.columns import require

_ENDS = ("ok", "failed", "diverged", "stopped")
# What W&B, MLflow, Optuna, Ray, Slurm and people call the states of a run, in small letters and
# with spaces. One that was ended from outside, or goes on, says nothing of its setting, whatever
# loss it had last; else it would count as diverged, or as one that was trained to its end.
_WORDS = {
    **dict.fromkeys(_ENDS, ""),
    **dict.fromkeys(
        (
            "finished", "complete", "completed", "success", "succeeded", "successful", "done",
            "terminated",
        ),
        "ok",
    ),
    **dict.fromkeys(
        (
            "crashed", "killed", "fail", "error", "errored", "exception", "aborted", "preempted",
            "canceled", "cancelled", "timeout", "timed out", "out of memory", "oom", "node fail",
            "boot fail", "deadline", "revoked",
        ),
        "failed",
    ),
    "pruned": "stopped",
    **dict.fromkeys(
        (
            "running", "pending", "queued", "waiting", "scheduled", "preempting", "interrupted",
            "paused", "suspended", "in progress", "inprogress", "created", "configuring",
            "completing", "requeued", "resizing", "signaling", "special exit", "stage out",
        ),
        "unfinished",
    ),
}  # fmt: skip


def begun(df: pd.DataFrame) -> pd.DataFrame:
    """The runs that have ended, with their ``status`` in our words; all, where there is none.

    Args:
        df: one row per run. An empty cell says no more than a table without the column does.

    Raises:
        TypeError: the table is no DataFrame.
        ValueError: a status is none that is known.

    >>> df = pd.DataFrame({"lr": [1, 2, 3], "status": ["COMPLETE", "Running", None]})
    >>> begun(df)["status"].tolist()
    ['ok', 'ok']
    """
    require(df)
    if "status" not in df.columns:
        return df
    require(df, "status")
    states = _in_our_words(df)
    return df.assign(status=states)[(states != "unfinished").to_numpy()]


def ended(df: pd.DataFrame) -> pd.DataFrame:
    """The runs that measured something: as `begun`, without those that failed.

    >>> ended(pd.DataFrame({"lr": [1, 2], "status": ["finished", "crashed"]}))["lr"].tolist()
    [1]
    """
    df = begun(df)
    return df[(df["status"] != "failed").to_numpy()] if "status" in df.columns else df


def trained(df: pd.DataFrame) -> pd.DataFrame:
    """The runs whose loss is that of their last step: as `ended`, without those ended early.

    >>> trained(pd.DataFrame({"lr": [1, 2], "status": ["ok", "diverged"]}))["lr"].tolist()
    [1]
    """
    df = begun(df)
    return df[(df["status"] == "ok").to_numpy()] if "status" in df.columns else df


def left_out(df: pd.DataFrame, kept: pd.DataFrame) -> str:
    """How many runs of a table were not kept, and how they ended; empty where all were.

    Args:
        df: the table as it was given.
        kept: the rows of it that are used, as from `ended` or `trained`.

    >>> df = pd.DataFrame({"lr": [1, 2, 3], "status": ["ok", "CRASHED", "running"]})
    >>> left_out(df, ended(df))
    '2 of 3 runs are left out for their status: 1 failed, 1 unfinished'
    """
    if len(kept) == len(df):
        return ""
    counts = _in_our_words(df).value_counts().sort_index()
    used = kept["status"].value_counts()
    gone = [f"{n - used.get(s, 0)} {s}" for s, n in counts.items() if n > used.get(s, 0)]
    count = len(df) - len(kept)
    are = "is left out for its" if count == 1 else "are left out for their"
    return f"{count} of {len(df)} runs {are} status: {', '.join(gone)}"


def _in_our_words(df: pd.DataFrame) -> pd.Series:
    states = df["status"].astype(object).where(df["status"].notna(), "ok").astype(str)
    words = {state: _word(state) for state in states.unique()}
    if unknown := [state for state, word in words.items() if word is None]:
        row = df.index[(states == unknown[0]).to_numpy()].tolist()[0]
        raise ValueError(
            f"column 'status' must say how runs ended, but {int(states.isin(unknown).sum())} of "
            f"{len(df)} rows hold {', '.join(map(repr, unknown[:5]))}, the first of them row "
            f"{row!r}: write 'ok' for runs that ended well, 'diverged', 'failed' for those that "
            "measured nothing or 'running', or rename the column if it means something else"
        )
    return states.map(words)


def _word(state: str) -> str | None:
    """Our word for a state; None where it is not known."""
    plain = re.sub(r"[\s_-]+", " ", state.strip().lower())
    plain = re.sub(r"^cancelled by .*", "cancelled", plain)  # Slurm names the user
    if plain.endswith("+"):  # Slurm cuts long words
        plain = next((word for word in _WORDS if word.startswith(plain[:-1])), plain)
    word = _WORDS.get(plain)
    return plain if word == "" else word
