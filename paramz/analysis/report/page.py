"""A self-contained HTML page: style, script and figures inside it, nothing fetched."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from paramz.analysis.counts import LEAST, count_label
from paramz.analysis.plots.style import GRID, INK, theme
from paramz.analysis.report.interactive import mark_, with_marks


def page(title: str, body: str) -> str:
    """The whole document.

    Args:
        title: plain text.
        body: HTML.

    Returns:
        HTML that needs no other file and no network.

    >>> page("A & B", "<p>x</p>").count("A &amp; B")
    1
    """
    here = files("paramz.analysis.report")
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    script = here.joinpath("page.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{body}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def html_table(df: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """A sortable table.

    Args:
        df: the columns become the headings; NaN is shown as a dash.
        formats: format specification per column, for numbers.

    Returns:
        HTML.

    >>> slopes = pd.DataFrame({"slope": [-0.694]})
    >>> 'data-value="-0.694">-0.69<' in html_table(slopes, {"slope": ".2f"})
    True
    """
    formats = formats or {}
    head = "".join(
        f'<th scope="col"><button type="button">{escape(str(c))}</button></th>' for c in df.columns
    )
    rows = "".join(
        "<tr>"
        + "".join(_cell(v, formats.get(str(c), "")) for c, v in zip(df.columns, row, strict=True))
        + "</tr>\n"
        for row in df.itertuples(index=False, name=None)
    )
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>"
    )


def _cell(value: object, spec: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f'<td class="text">{escape("–" if value is None else str(value))}</td>'
    if math.isnan(value):
        return '<td data-value="-inf">–</td>'
    large = not spec and math.isfinite(value) and value >= LEAST
    text = count_label(value) if large else format(value, spec or ".4g").replace("inf", "∞")
    return f'<td data-value="{float(value):.10g}">{text}</td>'


def html_figure(fig: Figure, png: Path, caption: str) -> str:
    """A figure inside the page, with the same picture as PNG beside it.

    In the page its text and axes take the colour of the page's text, so that they can be read on
    dark and light. The page's script shows the value of a point under the pointer, and hides lines
    and panels (see `paramz.analysis.report.interactive`).

    Args:
        fig: the figure; its ids are made unique with the name of the file.
        png: where the PNG goes.
        caption: plain text; also what a screen reader says.

    Returns:
        HTML.
    """
    buffer = io.StringIO()
    marks = mark_(fig)
    with theme(), mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": png.stem}):
        fig.savefig(png, dpi=160, facecolor="white")
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--line)")
    prefix = re.sub(r"\W", "-", png.stem)
    svg = re.sub(r'id="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = with_marks(svg, marks, f"{prefix}-")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption, quote=True)}" ', 1)
    name = escape(png.name)
    kind = ' class="map"' if any(_is_map(ax) for ax in fig.axes) else ""
    return (
        f'<figure{kind}>{svg}<figcaption>{escape(caption)} (<a href="{name}">{name}</a>)'
        "</figcaption></figure>"
    )


def _is_map(ax: Axes) -> bool:
    """Whether areas are filled by value, so that their colours have to stay what they are."""
    return any(isinstance(part, QuadMesh) for part in ax.collections)
