"""The part of the page on what was run: the settings that all trials share, and the code."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pandas as pd

from paramz.analysis.report.section import Section
from paramz.sweeps.spec.command import shown
from paramz.sweeps.spec.config import SEED, leaves
from paramz.sweeps.store.store import Store


def settings_section(run: Path, df: pd.DataFrame) -> Section:
    """What was run, so that it can be run again.

    Args:
        run: the folder of the sweep.
        df: its trials.

    Returns:
        the training function, its commit, versions, the values that all trials share (steps,
        optimizer, base, ...), those that vary, and the seeds.
    """
    store = Store(run)
    info = store.info()
    rows: dict[str, str] = {}
    if info.get("train"):
        rows["what was run"] = shown(str(info["train"]))
    if info.get("commit"):
        dirty = ", with changes that are in no commit" if info.get("dirty") else ""
        rows["commit"] = f"{info['commit']}{dirty}"
    names = sorted({n for r in store.records() for n in leaves(r["config"])} & set(df.columns))
    for name in names:
        values = df[name].dropna().unique()
        if name == SEED:
            rows["seeds"] = f"{len(values)} ({_listed(values)})"
        elif len(values) == 1:
            rows[name] = _text(values[0])
        elif len(values):
            rows[name] = f"varied: {_listed(values)}"
    rows |= {n: str(info[n]) for n in ("paramz", "torch", "python") if info.get(n)}
    if not rows:
        return Section()
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return Section(
        "<details open><summary>Settings</summary>"
        f'<div class="wide"><table class="settings"><tbody>{body}</tbody></table></div></details>'
    )


_SHOWN = 8  # values of an axis that are listed


def _listed(values: object) -> str:
    found = sorted(values, key=lambda v: (isinstance(v, str), v))  # type: ignore[call-overload]
    if len(found) > _SHOWN:
        return f"{len(found)} values from {_text(found[0])} to {_text(found[-1])}"
    return ", ".join(_text(value) for value in found)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
