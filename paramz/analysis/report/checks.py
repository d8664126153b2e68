"""The part of the page on coordinate checks: each verdict, its panels and its slopes."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from paramz.analysis import plots
from paramz.analysis.causes import departing
from paramz.analysis.coordinates import Verdict, in_words
from paramz.analysis.outcome import Outcome
from paramz.analysis.report.page import html_table
from paramz.analysis.report.section import Section, View, drawing, judgement, stacked
from paramz.analysis.slopes import Slope, axis_of

_WORDS: dict[Outcome, str] = {"pass": "Pass", "fail": "Fail", "undecided": "Undecided"}


def checks_section(folder: Path, view: View) -> Section:
    """What the coordinate checks in a folder say.

    Args:
        folder: holds ``<label>.csv``, and ``<label>.json`` with its verdict where it was judged.
        view: what to show.

    Returns:
        the part, with panels of the same modules for all checks over one scale, so that they
        compare; empty where the folder holds no check.

    Raises:
        ValueError: a JSON file holds no verdict.
    """
    checks = {p.stem: pd.read_csv(p) for p in sorted(folder.glob("*.csv"))}
    if not checks:
        return Section()
    by_axis: dict[str, list[pd.DataFrame]] = {}
    for df in checks.values():
        by_axis.setdefault(axis_of(df), []).append(df)
    modules = {axis: plots.steepest(pd.concat(tables)) for axis, tables in by_axis.items()}
    parts = [Section("<h3>Coordinate check</h3>")]
    for label, df in checks.items():
        verdict = _read_verdict(folder / f"{label}.json")
        parts.append(_check_section(label, df, verdict, modules[axis_of(df)], view))
    return stacked(parts)


def _check_section(
    label: str, df: pd.DataFrame, verdict: Verdict | None, modules: list[str], view: View
) -> Section:
    html, verdicts, axis = "", [], axis_of(df)
    if verdict is not None:
        verdicts.append(verdict.sentence)
        html += judgement(verdict.outcome, _WORDS[verdict.outcome], verdict.finding)
    png = view.png(f"coord-{label}")
    name, rates = label, sorted(df["lr"].unique()) if "lr" in df.columns else []
    if len(rates) > 1:  # that which was judged, or would be
        known = verdict is not None and np.isfinite(verdict.lr)
        rate = verdict.lr if verdict is not None and known else rates[(len(rates) - 1) // 2]
        df = df[np.isclose(df["lr"], rate, rtol=1e-9, atol=0)]
        name = f"{label}, lr {rate:.4g}"
    changed = set(df.loc[(df["quantity"] == "delta") & (df["rms"] > 0), "module"])
    own, shown = plots.steepest(df), [m for m in modules if m in changed]
    if own and own[-1] not in shown:  # a check of another model, whose output is another module
        shown = own
    named = departing(verdict.slopes, axis) if verdict is not None else None
    if named is not None and not _measured(df, named):
        named = None
    if drawn := bool(shown) or named is not None:
        first = verdict if named is not None else None
        panels = plots.coord_check(df, modules=shown, verdict=first)
        html += drawing(panels[0], png, _caption(name, axis, named))
    else:
        html += f"<p>{escape(label)}: no module's output changed at two sizes or more.</p>"
    if verdict is not None and verdict.slopes:
        html += _slopes(label, axis, verdict.slopes)
    lines = [("Coordinates", f"{label}: {verdict.outcome}")] if verdict is not None else []
    return Section(html, verdicts, [png] if drawn else [], lines=lines)


def _measured(df: pd.DataFrame, named: Slope) -> bool:
    """Whether the table has what a verdict names; the two files may be of different checks."""
    rows = (df["module"] == named.module) & (df["quantity"] == named.quantity) & (df["rms"] > 0)
    return bool(rows.any())


def _caption(name: str, axis: str, named: Slope | None) -> str:
    rest = (
        f"change of each module's output since step 0 against {axis}, a line per step; flat is "
        "right, and what may shrink says so. The modules whose size varies most are shown"
    )
    if named is None:
        return f"{name}: {rest}"
    return f"{name}: first what the verdict names ({in_words(named, axis)}); then {rest}"


def _slopes(label: str, axis: str, slopes: tuple[Slope, ...]) -> str:
    listed = html_table(
        pd.DataFrame([asdict(s) for s in slopes]), dict.fromkeys(("slope", "lo", "hi"), "+.3f")
    )
    return (
        f"<details><summary>Slopes of {escape(label)}: log size against log {axis}"
        f"</summary>{listed}</details>"
    )


def _read_verdict(path: Path) -> Verdict | None:
    """The verdict saved in a file; None where there is no file."""
    if not path.is_file():
        return None
    try:
        return Verdict.from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
