"""Writing the page: one run after the other, each with its sweep and its coordinate checks."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from paramz.analysis.report.checks import checks_section
from paramz.analysis.report.decision import box, tuned
from paramz.analysis.report.page import page
from paramz.analysis.report.section import Section, View, stacked
from paramz.analysis.report.sweep import sweep_section
from paramz.sweeps import load


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        path: the HTML page.
        verdicts: its sentences, as ``run: sentence`` where there are several runs.
        figures: the PNG files beside it.
        answers: the values to use, a record per run and group.
        judged: whether there is anything else than why nothing could be judged: a transfer, a law
            or a coordinate check.
    """

    path: Path
    verdicts: list[str]
    figures: list[Path]
    answers: list[dict[str, Any]]
    judged: bool


def write_report(
    folder: str | Path,
    *,
    hp: str = "lr",
    loss: str = "loss",
    scale: str | None = None,
    out: str | Path | None = None,
) -> Report:
    """Write ``report.html`` into a run's folder, or into a folder of several runs.

    Args:
        folder: the run, or the folder that holds runs.
        hp: the hyperparameter whose transfer is judged.
        loss: the metric that is minimized.
        scale: the scale; by default width, or depth where width does not vary.
        out: where the page and its figures go instead; made if it is not there.

    Returns:
        where it was written and what it says.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
        ValueError: the JSON file beside a coordinate check holds no verdict.
        OSError: the page or a figure cannot be written.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    runs = find_runs(root)
    if not runs:
        raise FileNotFoundError(
            f"{root} holds no run: a run is a folder with results/ (written by `paramz sweep`) or "
            "coord/ (written by `paramz check`)"
        )
    place = root if out is None else Path(out)
    place.mkdir(parents=True, exist_ok=True)
    sections = [
        # PNG files are named after the run where there are several.
        _run_section(run, View(place, "" if run == root else f"{run.name}-", hp, loss, scale))
        for run in runs
    ]
    named = list(zip([run.resolve().name for run in runs], sections, strict=True))
    return _write(place, root.resolve().name, named, tuned(root))


def write_table_report(
    table: pd.DataFrame,
    place: str | Path,
    *,
    hp: str = "lr",
    loss: str = "loss",
    scale: str | None = None,
) -> Report:
    """Write ``report.html`` on a table of runs.

    Args:
        table: one row per run, as from `paramz.analysis.tables.as_trials`.
        place: where the page and its figures go; made if it is not there.
        hp: the hyperparameter whose transfer is judged.
        loss: the metric that is minimized.
        scale: the scale; by default width, or depth where width does not vary.

    Returns:
        where it was written and what it says.

    Raises:
        OSError: the page or a figure cannot be written.
    """
    place = Path(place)
    place.mkdir(parents=True, exist_ok=True)
    name = place.resolve().name
    section = _framed(name, [sweep_section(table, View(place, "", hp, loss, scale))])
    return _write(place, name, [(name, section)])


def _write(place: Path, name: str, sections: list[tuple[str, Section]], first: str = "") -> Report:
    """The page of one or several runs, each with its name, below what comes first."""
    title = f"{name}: transfer report"
    body = f"<h1>{escape(title)}</h1>{first}" + "".join(s.html for _, s in sections)
    path = place / "report.html"
    path.write_text(page(title, body), encoding="utf-8")
    one = len(sections) == 1
    return Report(
        path,
        [v if one else f"{run}: {v}" for run, s in sections for v in s.verdicts],
        [f for _, s in sections for f in s.figures],
        [{"run": run} | a for run, s in sections for a in s.answers],
        any(s.figures or "Coordinates" in dict(s.lines) for _, s in sections),
    )


def find_runs(root: Path) -> list[Path]:
    """The runs in a folder: the folder itself if it is one, else those of its folders that are."""

    def is_run(path: Path) -> bool:
        return (path / "results").is_dir() or (path / "coord").is_dir()

    return [root] if is_run(root) else sorted(p for p in root.iterdir() if is_run(p))


def _run_section(run: Path, view: View) -> Section:
    parts = []
    if (run / "results").is_dir():
        every = load(run, unasked=True)
        asked = every[every["asked"]].drop(columns="asked")
        parts.append(sweep_section(asked, view, run=run, left_out=len(every) - len(asked)))
    if (run / "coord").is_dir():
        parts.append(checks_section(run / "coord", view))
    return _framed(run.resolve().name, parts)


def _framed(name: str, parts: list[Section]) -> Section:
    """The parts of one run under its name."""
    whole = stacked(parts)
    decided = box(whole.lines, whole.outcome or "undecided")
    html = f"<section><h2>{escape(name)}</h2>{decided}{whole.html}</section>"
    return Section(html, whole.verdicts, whole.figures, whole.answers)
