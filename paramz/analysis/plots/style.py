"""One style for every figure: readable in print, in grey and by colour-blind readers.

It is seaborn's theme for papers with a few settings of its own, and gives way to what you set:
after `seaborn.set_theme`, or with your own `matplotlib.rcParams`, figures look as you asked.

Scales (width, depth) take a sequence that grows monotonically in lightness; groups take the
Okabe-Ito colours, always together with a marker of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator, NullLocator

from paramz.analysis.counts import count_label

# Text and lines of the axes, and the grid. The report swaps these two for the page's own colours.
INK = "#24292f"
GRID = "#d5d9de"

# Okabe & Ito, "Color Universal Design" (2008), the six that show on white and on black.
GROUP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GROUP_MARKERS = ("o", "s", "^", "D", "v", "P")

_OWN: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.bottom": True,
    "ytick.left": True,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "grid.color": GRID,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
RC: dict[Any, Any] = {
    **sns.plotting_context("paper", rc={"lines.linewidth": 1.6, "axes.titlesize": 10.0}),
    **sns.axes_style("whitegrid", rc=_OWN),
    "legend.title_fontsize": 8.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}


def theme() -> AbstractContextManager[None]:
    """The style as a context manager; what is drawn or saved inside has it.

    Settings that are not those of matplotlib itself are left alone: they are yours.
    """
    default: dict[Any, Any] = mpl.rcParamsDefault
    now: dict[Any, Any] = mpl.rcParams
    return mpl.rc_context({k: v for k, v in RC.items() if now[k] == default[k]})


def scale_colors(scales: Iterable[float]) -> dict[float, str]:
    """A colour per scale, dark to light with growing scale.

    >>> list(scale_colors([64, 128]))
    [64, 128]
    """
    ordered = sorted(set(scales))
    # Up to five take the middle of the map: black on a dark page and yellow on paper would vanish.
    # More need all of a map with more hues.
    low, high, name = (0.18, 0.80, "viridis") if len(ordered) <= 5 else (0.08, 0.88, "plasma")
    stops = np.linspace(low, high, max(len(ordered), 2))
    return {s: to_hex(mpl.colormaps[name](v)) for s, v in zip(ordered, stops, strict=False)}


def scale_markers(scales: Iterable[float]) -> dict[float, str]:
    """A marker per scale, so that neighbours of a long row are told apart.

    >>> scale_markers([64, 128])
    {64: 'o', 128: 's'}
    """
    ordered = sorted(set(scales))
    return {s: GROUP_MARKERS[i % len(GROUP_MARKERS)] for i, s in enumerate(ordered)}


def group_style(index: int) -> tuple[str, str]:
    """Colour and marker of the group at this position.

    >>> group_style(0)
    ('#0072b2', 'o')
    """
    turn, place = divmod(index, len(GROUP_COLORS))
    color, marker = GROUP_COLORS[place], GROUP_MARKERS[(place + turn) % len(GROUP_MARKERS)]
    if not turn:
        return color, marker
    # Beyond six groups, in turn darker and lighter, each with the marker of the next one.
    end, share = ((0.0, 0.45), (1.0, 0.45), (0.0, 0.7))[(turn - 1) % 3]
    red, green, blue = (part + share * (end - part) for part in to_rgb(color))
    return to_hex((red, green, blue)), marker


def new_axes(ax: Axes | None, size: tuple[float, float] = (4.2, 3.2)) -> Axes:
    """The given axes, or those of a new figure in this style."""
    return ax if ax is not None else _panels(1, size, share=False)[0]


def new_row(
    count: int, *, width: float = 3.3, height: float = 3.1, share: bool = True
) -> list[Axes]:
    """Panels side by side in a new figure in this style, with a common y axis when shared."""
    return _panels(count, (max(width * count, 4.2), height), share=share)


def _panels(count: int, size: tuple[float, float], *, share: bool) -> list[Axes]:
    # The figure is made outside the context: a notebook's backend turns interactive mode on when
    # it meets its first figure, and leaving the context would turn it off again.
    fig = plt.figure(figsize=size, dpi=RC["figure.dpi"], layout="constrained")
    with theme():
        return list(fig.subplots(1, count, sharey=share, squeeze=False)[0])


def wrapped(name: str, width: int) -> str:
    """A name in lines of about so many letters, broken behind dots, signs and spaces.

    >>> wrapped("model.layers.0.self_attn.q_proj.lora_B.default", 32).split(chr(10))
    ['model.layers.0.self_attn.q_proj.', 'lora_B.default']
    """
    lines = [""]
    for part in re.findall(r"[^.+|·\s]*[.+|·\s]*", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def share_labels(panels: Sequence[Axes]) -> None:
    """Keep the y label of the first of several panels side by side, and one legend for all."""
    for ax in panels[1:]:
        ax.set_ylabel("")
    named: dict[str, Artist] = {}
    for ax in sorted(panels, key=lambda ax: -len(ax.get_legend_handles_labels()[1])):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    for ax in panels[:-1]:
        if legend := ax.get_legend():
            legend.remove()
    legend = panels[-1].get_legend()
    if legend and len(named) > len(legend.get_texts()):
        legend_beside(panels[-1], legend.get_title().get_text(), named)


def power_ticks(ax: Axes, values: Iterable[float]) -> None:
    """A log2 x axis whose ticks are the given scales, written out (counts as 215M).

    Where they would not fit, every other one has a label, or fewer, and the largest has.
    """
    ticks = sorted(set(values))
    labels = [count_label(t) for t in ticks]
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, labels)
    figure = ax.get_figure(root=True)
    assert figure is not None
    size = float(ax.xaxis.get_ticklabels()[0].get_fontsize()) * figure.dpi / 72
    # A digit is some 0.65 times as wide as the font is high, and labels keep one and a half apart.
    wide = 0.65 * size * (max(map(len, labels)) + 1.5)
    every = math.ceil(wide * (len(ticks) - 1) / max(ax.bbox.width, 1.0)) or 1
    shown = [x if (len(labels) - 1 - i) % every == 0 else "" for i, x in enumerate(labels)]
    ax.set_xticks(ticks, shown)
    ax.minorticks_off()


def count_ticks(ax: Axes, which: str, low: float, high: float, most: int = 6) -> None:
    """A log axis over counts whose ticks read 215M or 3B, and a power of ten where letters end.

    Args:
        ax: the axes.
        which: ``"x"`` or ``"y"``.
        low: the least value on it.
        high: the greatest.
        most: how many ticks at most.
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = np.array([])
    for digits in ((1, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = np.array([d * 10.0**p for p in decades for d in digits])
        ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
        if len(ticks) <= most:
            break
    if len(ticks) < 2:  # a range with hardly a round number in it
        ticks = np.array(MaxNLocator(most - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
    if len(ticks) < 2:
        ticks = np.unique([low, high])
    ticks = ticks[:: max(1, math.ceil(len(ticks) / most))]
    ax.set(**{f"{which}scale": "log"})
    ax.set(**{f"{which}ticks": ticks, f"{which}ticklabels": [_power_label(t) for t in ticks]})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_minor_locator(NullLocator())


def _power_label(value: float) -> str:
    text = count_label(value)
    digits, _, power = text.partition("e+")
    if not power:
        return text
    return f"$10^{{{power}}}$" if digits == "1" else f"${digits}{{\\times}}10^{{{power}}}$"


def legend_beside(
    ax: Axes, title: str | None = None, named: Mapping[str, Artist] | None = None
) -> None:
    """A legend to the right of the axes, off the data: of its lines, or of those given by name."""
    lines = () if named is None else (list(named.values()), list(named))
    with theme():
        ax.legend(*lines, title=title, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.2)


def legend_above(ax: Axes, columns: int = 1) -> None:
    """A legend above the axes, off the data."""
    with theme():
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=columns)
