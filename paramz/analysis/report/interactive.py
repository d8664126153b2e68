"""What lets the page's script show values and hide lines: names and points beside the drawn curves.

A curve is told by its colour, which stands for one thing in all panels of a figure, as its legend
says. Points are given as shares of their panel's width and height, so that they hold at any size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_LOG, _OF = "log₂ ", "of the "
Marks = dict[str, dict[str, str]]
"""Id of an element -> attributes that it gets."""


def mark_(fig: Figure) -> Marks:
    """Give ids to panels and curves of a figure, and return what is to be known of each.

    Args:
        fig: the figure, before it is saved.

    Returns:
        attributes for `with_marks`: the class, the name, and of a curve its points.
    """
    names, kind = _names(fig)
    x_label = next((ax.get_xlabel() for ax in fig.axes if ax.get_xlabel()), "")
    y_label = next((ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()), "")
    found: Marks = {}
    for number, ax in enumerate(fig.axes):
        ax.set_gid(f"panel{number}")
        ax.patch.set_gid(f"area{number}")
        found[f"panel{number}"] = {"class": "panel", "data-name": ax.get_title().replace("\n", "")}
        found[f"area{number}"] = {"class": "area"}
        y_label = ax.get_ylabel() or y_label  # that of the panel to the left, where they share one
        for artist in (*ax.lines, *ax.collections):
            name = names.get(_colour(artist))
            if name is None:
                continue
            gid = f"series{len(found)}"
            artist.set_gid(gid)
            found[gid] = {"class": "series", "data-name": name, "data-kind": kind}
            if isinstance(artist, Line2D) and artist.get_transform() == ax.transData:
                labels = ax.get_xlabel() or x_label, ax.get_ylabel() or y_label
                found[gid]["data-points"] = json.dumps(_points(ax, artist, labels))
    return found


def with_marks(svg: str, marks: Mapping[str, Mapping[str, str]], prefix: str) -> str:
    """The figure's SVG with these attributes.

    Args:
        svg: the text, whose ids begin with the prefix.
        marks: from `mark_`.
        prefix: what ids begin with.

    >>> with_marks('<g id="a-panel0">', {"panel0": {"data-name": "x & y"}}, "a-")
    '<g id="a-panel0" data-name="x &amp; y">'
    """

    def attributes(found: re.Match[str]) -> str:
        given = marks.get(found[1], {})
        return found[0] + "".join(f' {k}="{escape(v, quote=True)}"' for k, v in given.items())

    return re.sub(rf'id="{re.escape(prefix)}([\w-]+)"', attributes, svg)


def _names(fig: Figure) -> tuple[dict[str | None, str], str]:
    """Colour -> what it stands for, and the title of the legend."""
    names: dict[str | None, str] = {}
    kind = ""
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            names.setdefault(_colour(handle), label)
        if (legend := ax.get_legend()) is not None:
            kind = kind or legend.get_title().get_text()
    names.pop(None, None)
    return names, kind


def _colour(artist: object) -> str | None:
    """The one colour of an artist; None if it has several or none."""
    if isinstance(artist, Container):
        artist = artist[0]
    if isinstance(artist, Line2D):
        return to_hex(artist.get_color())
    if isinstance(artist, Collection):
        filled = np.asarray(artist.get_facecolor())
        shown = filled if len(filled) else np.asarray(artist.get_edgecolor())
        colours = {to_hex(colour[:3]) for colour in shown}
        return colours.pop() if len(colours) == 1 else None
    return None


def _points(ax: Axes, line: Line2D, labels: tuple[str, str]) -> list[list[float | str]]:
    """Where in its panel each point lies, and what is said there."""
    values = np.column_stack([np.asarray(v, dtype=float) for v in line.get_data()])
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return []
    shares = ax.transAxes.inverted().transform(ax.transData.transform(values))
    return [
        [round(float(share[0]), 4), round(float(share[1]), 4), _said(value, labels, ax)]
        for share, value in zip(shares, values, strict=True)
        if (share >= -0.01).all() and (share <= 1.01).all()
    ]


def _said(value: np.ndarray, labels: tuple[str, str], ax: Axes) -> str:
    told = []
    for v, label, own in zip(value, labels, (ax.fmt_xdata, ax.fmt_ydata), strict=True):
        if label.startswith(_LOG):
            told.append(f"{label.removeprefix(_LOG).removeprefix(_OF)} {2.0**v:.4g}")
        else:
            told.append(f"{label} {own(v) if own else f'{v:.4g}'}")
    return ", ".join(told)
