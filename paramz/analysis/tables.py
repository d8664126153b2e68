"""Tables of runs that others wrote: CSV, parquet, JSON lines, exports of W&B and TensorBoard.

What they call things is turned into the names of a sweep: ``loss``, ``seed``, ``status`` and the
settings. Names that differ are given as a mapping.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from paramz.analysis.columns import in_order
from paramz.analysis.statuses import begun

ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")

# Columns of a W&B export that are no setting of the run.
_BOOKKEEPING = {
    "ID", "Notes", "User", "Tags", "Created", "Runtime", "Updated", "End Time", "Hostname", "Sweep",
    "GitHub", "Group", "Job Type", "_runtime", "_timestamp", "_wandb",
}  # fmt: skip
# Those of others, by the two columns that tell whose table it is; there a setting may be called so.
_OF_OTHERS = {
    ("run_id", "experiment_id"): {"run_id", "experiment_id", "artifact_uri", "start_time",
                                  "end_time"},
    ("Run ID", "Source Type"): {"Run ID", "Source Type", "Source Name", "Start Time", "Duration"},
    ("number", "datetime_start"): {"number", "datetime_start", "datetime_complete", "duration"},
    ("trial_id", "logdir"): {"trial_id", "logdir", "pid", "hostname", "node_ip", "date",
                             "timestamp", "experiment_tag"},
}  # fmt: skip
# What W&B, Ray and MLflow (search_runs) put in front of the names of settings and metrics.
_FRONTS = ("config.", "summary.", "config/", "summary/", "params.", "metrics.")
# A setting in the name of a run, as in "width=128,lr=0.01".
_PAIR = re.compile(r"([A-Za-z_]\w*)=([^,;/\s=]+)")
# How a W&B chart names the columns of its runs, with bounds beside each.
_CURVE = re.compile(r"^(?P<run>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?$")


def read_table(path: str | Path, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A table of runs, or of the logged steps of runs, from a file.

    Tables of MLflow's search_runs, of Optuna's trials_dataframe and of Ray lose what these put in
    front of names, and Optuna's value is the loss. Files of W&B are the export of its table of
    runs, of its API (dictionaries under ``config`` and ``summary``), and of a chart (a column per
    run, made into rows). A file of TensorBoard holds the values of one tag in one run (``Wall time,
    Step, Value``); a folder of such files is read as one table. Settings in the names of runs, as
    in ``width=128,lr=0.01``, become columns.

    Args:
        path: the file, by its ending (.csv, .tsv, .parquet, .jsonl, .ndjson or .json), or a folder
            of TensorBoard's CSV files.
        names: columns to rename, theirs to ours.

    Returns:
        the table: one row per run, or per logged step where the file holds curves.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the ending is unknown, the content does not fit it, or is empty, or a column
            would have the name of another.
        KeyError: a column to rename is not there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    parts = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not parts:
        raise ValueError(f"{path} holds no CSV files")
    table = pd.concat([_tidy(_parsed(part), part) for part in parts], ignore_index=True)
    if table.empty:
        raise ValueError(f"{path} holds no rows")
    return _renamed(table, names or {}, path)


def parse_names(given: list[str]) -> dict[str, str]:
    """The mapping in texts such as ``hidden_size=width``.

    Raises:
        ValueError: a text has another form.

    >>> parse_names(["hidden_size=width"])
    {'hidden_size': 'width'}
    """
    found = {}
    for text in given:
        theirs, sign, ours = text.rpartition("=")
        if not (theirs and sign and ours):
            raise ValueError(f"--map wants theirs=ours, as in hidden_size=width; got {text!r}")
        found[theirs] = ours
    return found


def last_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A row per run without its name: the last step where a table holds curves.

    Names of runs would be taken for a setting that differs between runs. The row of a run that has
    no loss at its last step, where other runs have one, or has none at all, has none.

    >>> curve = pd.DataFrame({"run": ["a", "a"], "step": [1, 2], "loss": [3.0, 2.0]})
    >>> last_rows(curve)["loss"].tolist()
    [2.0]
    """
    if "run" not in table:
        return table
    if "step" in table and table["run"].duplicated().any():
        table = _ends(table).reset_index(drop=True)
    return table if table["run"].duplicated().any() else table.drop(columns="run")


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last row of each run."""
    has = table["loss"].notna() if "loss" in table else pd.Series(True, index=table.index)
    measured = set(table.loc[has, "step"])
    ends = []
    for _, part in table.assign(_has=has).groupby("run", sort=False, dropna=False):
        # Of rows of one step that with a loss counts.
        part = in_order(part.sort_values("_has", kind="stable"), "step")
        good, last = part[part["_has"]], part.iloc[[-1]]
        # Others measure at that step, so this run did, too, and found no number.
        if good.empty or (not last["_has"].item() and last["step"].item() in measured):
            ends.append(last)
        else:
            ends.append(good.iloc[[-1]])
    return pd.concat(ends).drop(columns="_has")


def as_trials(table: pd.DataFrame) -> pd.DataFrame:
    """A table of runs with the columns that the results of a sweep have.

    Args:
        table: one row per run.

    Returns:
        the table with ``key, status, error, seconds``; a run without a loss diverged.

    >>> as_trials(pd.DataFrame({"width": [8, 16], "loss": [2.0, float("nan")]}))["status"].tolist()
    ['ok', 'diverged']
    """
    usual: dict[str, Any] = {
        "key": table.index.astype(str),
        "status": "ok",
        "error": None,
        "seconds": 0.0,
    }
    table = table.assign(**{c: v for c, v in usual.items() if c not in table})
    if "loss" in table:
        table.loc[table["loss"].isna() & table["status"].eq("ok"), "status"] = "diverged"
    seconds = pd.to_numeric(table["seconds"], errors="coerce").fillna(0.0)
    return table.assign(seconds=seconds)


def _parsed(path: Path) -> pd.DataFrame:
    """The table in a file, as it stands there."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{path}: cannot tell what {ending or 'no ending'} is; "
                         f"a table ends in {', '.join(ENDINGS)}")  # fmt: skip
    try:
        if ending in (".csv", ".tsv"):
            table = pd.read_csv(path, sep="\t" if ending == ".tsv" else ",")
            only = str(table.columns[0]) if len(table.columns) == 1 else ""
            if ";" in only or "\t" in only:
                raise ValueError(
                    f"its only column is {only!r}: columns are apart by commas (in .tsv by tabs) "
                    "and decimals by points"
                )
            return table
        if ending == ".parquet":
            return pd.read_parquet(path)
        text = path.read_text(encoding="utf-8")
        if ending == ".json":
            content = json.loads(text)
            return pd.DataFrame(content if isinstance(content, (list, dict)) else [content])
        return pd.DataFrame([json.loads(line) for line in text.splitlines() if line.strip()])
    except ImportError as error:
        raise ValueError(f"{path}: parquet needs pyarrow: pip install pyarrow ({error})") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no table of {ending}: {error}") from None


def _tidy(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table with the names of a sweep, whoever wrote it."""
    table = _unfolded(table)
    columns = [str(column).strip() for column in table.columns]
    table.columns = pd.Index(columns)
    curves = [c for c in columns if _CURVE.match(c)]
    if {"Wall time", "Step", "Value"} <= set(columns):
        run = re.sub(r"^run-|-tag-.*$", "", path.stem)
        table = table.rename(columns={"Step": "step", "Value": "loss"}).drop(columns="Wall time")
        table.insert(0, "run", run)
    elif "Step" in columns and curves:
        table = _long(table, curves)
    renames = {"Name": "run", "name": "run", "State": "status", "state": "status"}
    for prefix in _FRONTS:
        renames |= {c: c[len(prefix) :] for c in columns if c.startswith(prefix)}
    own = [c for c in columns if c.startswith(("params_", "user_attrs_"))]
    if own and {"number", "value"} <= set(columns):
        renames |= {"value": "loss"} | {c: re.sub("^(params|user_attrs)_", "", c) for c in own}
    if not {"run", "Name", "name"} & set(columns):  # a row per logged step needs to know its run
        renames |= {c: "run" for c in ("run_id", "trial_id") if c in columns}
    renames = {old: new for old, new in renames.items() if old in table and new not in table}
    table = table.rename(columns=renames)
    gone = _BOOKKEEPING | {c for c in table.columns if c.startswith("tags.")}
    for signs, theirs in _OF_OTHERS.items():
        gone |= theirs if set(signs) <= set(columns) else set()
    table = table.drop(columns=list(gone & set(table.columns)))
    return _with_settings(begun(table))


def _unfolded(table: pd.DataFrame) -> pd.DataFrame:
    """Dictionaries under ``config`` and ``summary``, which W&B's API gives, as columns."""
    parts = [table]
    for name in ("config", "summary", "metrics"):
        if name not in table:
            continue
        cells = [_dictionary(cell) for cell in table[name]]
        if all(cell is not None for cell in cells):
            flat = pd.json_normalize([cell or {} for cell in cells]).set_axis(table.index)
            flat = flat[[c for c in flat if not str(c).startswith("_")]]
            parts.append(flat.drop(columns=[c for c in flat if any(c in p for p in parts)]))
            parts[0] = parts[0].drop(columns=name)
    return pd.concat(parts, axis=1)


def _dictionary(cell: Any) -> dict[str, Any] | None:
    if isinstance(cell, str) and cell.startswith("{"):
        try:
            cell = ast.literal_eval(re.sub(r"\bnan\b", "None", cell))
        except (ValueError, SyntaxError):
            return None
    return cell if isinstance(cell, dict) else None


def _long(table: pd.DataFrame, curves: list[str]) -> pd.DataFrame:
    """A chart's columns of runs as rows: ``run, step`` and a column of the metric."""
    parts = []
    for column in curves:
        match = _CURVE.match(column)
        if match is None or match["bound"] or match["metric"].endswith("_step"):
            continue
        part = pd.DataFrame({"run": match["run"], "step": table["Step"]})
        parts.append(part.assign(**{match["metric"]: table[column]}).dropna())
    return pd.concat(parts, ignore_index=True)


def _with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Settings in the names of runs as columns, where there are none of that name."""
    if "run" not in table:
        return table
    found = pd.DataFrame(
        [dict(_PAIR.findall(str(name))) for name in table["run"]], index=table.index
    )
    for column in found.columns.difference(list(table.columns), sort=False):
        values = pd.to_numeric(found[column], errors="coerce")
        table = table.assign(**{column: found[column] if values.isna().any() else values})
    return table


def _renamed(table: pd.DataFrame, names: Mapping[str, str], path: Path) -> pd.DataFrame:
    missing = [name for name in names if name not in table]
    if missing:
        have = ", ".join(map(str, table.columns))
        raise KeyError(f"{path} has no column {', '.join(map(repr, missing))}; it has: {have}")
    # A column of ours that another of theirs becomes gives way.
    gone = [ours for theirs, ours in names.items() if ours in table and ours != theirs]
    table = table.drop(columns=[c for c in gone if c not in names]).rename(columns=dict(names))
    if table.columns.duplicated().any():
        twice = ", ".join(sorted(set(table.columns[table.columns.duplicated()])))
        raise ValueError(f"{path}: two columns would be called {twice}: give each its own --map")
    return table
