"""How runs ended, in the words of a sweep, whoever wrote the table."""

from __future__ import annotations

import pandas as pd

# What W&B, Optuna, Ray and people call the states of a run. One without a loss that goes on or was
# not begun says nothing of its setting; else it would count as diverged.
_WORDS = {
    **dict.fromkeys(
        ("finished", "complete", "completed", "success", "succeeded", "done", "terminated"), "ok"
    ),
    **dict.fromkeys(
        ("crashed", "killed", "fail", "error", "errored", "preempted", "canceled", "cancelled"),
        "failed",
    ),
    "pruned": "stopped",
    **dict.fromkeys(
        ("running", "pending", "queued", "waiting", "scheduled", "preempting"), "unfinished"
    ),
}


def begun(df: pd.DataFrame) -> pd.DataFrame:
    """The runs that have ended, with their ``status`` in our words; all, where there is none.

    >>> df = pd.DataFrame({"lr": [1, 2, 3], "status": ["COMPLETE", "Running", None]})
    >>> begun(df)["status"].tolist()
    ['ok', 'ok']
    """
    if "status" not in df.columns:
        return df
    # An empty cell says no more than a table without the column does.
    states = df["status"].astype(object).where(df["status"].notna(), "ok").astype(str)
    states = states.map(lambda state: _WORDS.get(state.strip().lower(), state.strip()))
    lowered = states.str.lower()
    states = states.where(~lowered.isin(("ok", "failed", "diverged", "stopped")), lowered)
    return df.assign(status=states)[states != "unfinished"]


def ended(df: pd.DataFrame) -> pd.DataFrame:
    """The runs that measured something: as `begun`, without those that failed.

    >>> ended(pd.DataFrame({"lr": [1, 2], "status": ["finished", "crashed"]}))["lr"].tolist()
    [1]
    """
    df = begun(df)
    return df[df["status"] != "failed"] if "status" in df.columns else df
