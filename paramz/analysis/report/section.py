"""A part of the page: what it is made from, what it consists of, and the pieces all parts share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from paramz.analysis.outcome import Outcome
from paramz.analysis.report.page import html_figure
from paramz.analysis.runs import choose_scale

COLORED: dict[Outcome, str] = {"pass": "good", "fail": "bad", "undecided": "open"}
"""The class in page.css that colours a judgement."""


@dataclass(frozen=True)
class View:
    """What the page is asked to show of one run.

    Attributes:
        root: folder of the page and its PNG files.
        prefix: what the names of this run's PNG files begin with.
        hp: the hyperparameter whose transfer is judged.
        loss: the metric that is minimized.
        scale: the scale; None for width, or depth where width does not vary.
    """

    root: Path
    prefix: str
    hp: str
    loss: str
    scale: str | None

    def png(self, name: str) -> Path:
        """Where a figure's PNG file goes."""
        return self.root / f"{self.prefix}{name}.png"

    def axis(self, df: pd.DataFrame) -> str:
        """The column of the scale.

        Raises:
            ValueError: none was named, and neither width nor depth varies.
        """
        return self.scale or choose_scale(df, "name the scale with --scale")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        html: its HTML.
        verdicts: its sentences, for the terminal.
        figures: its PNG files.
        answers: the values to use, a record per group (`Answer.to_json` and the outcome).
        lines: what of it belongs into the decision, as title and text.
        outcome: of the group to use; None where there is none.
    """

    html: str = ""
    verdicts: list[str] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    outcome: Outcome | None = None


def stacked(parts: Iterable[Section]) -> Section:
    """The parts, one below the other."""
    parts = list(parts)
    return Section(
        "".join(p.html for p in parts),
        [v for p in parts for v in p.verdicts],
        [f for p in parts for f in p.figures],
        [a for p in parts for a in p.answers],
        [line for p in parts for line in p.lines],
        next((p.outcome for p in parts if p.outcome is not None), None),
    )


def judgement(outcome: Outcome, word: str, sentence: str) -> str:
    """A judgement in HTML, coloured by its outcome; the word comes first, in bold."""
    kind = COLORED[outcome]
    return f'<p class="verdict {kind}"><b>{escape(word)}.</b>{escape(sentence)}</p>'


def drawing(ax: Axes, png: Path, caption: str) -> str:
    """The figure of these axes in HTML and as a PNG file; the figure is closed."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    html = html_figure(fig, png, caption)
    plt.close(fig)
    return html
