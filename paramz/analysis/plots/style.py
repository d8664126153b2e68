"""One style for every figure: readable in print, in grey and by colour-blind readers.

Scales (width, depth) take a sequence that grows monotonically in lightness; groups take the
Okabe-Ito colours, always together with a marker of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

# Text and lines of the axes, and the grid. The report swaps these two for the page's own colours.
INK = "#24292f"
GRID = "#d5d9de"

# Okabe & Ito, "Color Universal Design" (2008), the six that show on white and on black.
GROUP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GROUP_MARKERS = ("o", "s", "^", "D", "v", "P")

RC: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "legend.title_fontsize": 8.0,
    "legend.frameon": False,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}


def theme() -> AbstractContextManager[None]:
    """The style as a context manager; what is drawn or saved inside has it."""
    return mpl.rc_context(RC)


def scale_colors(scales: Iterable[float]) -> dict[float, str]:
    """A colour per scale, dark to light with growing scale.

    >>> list(scale_colors([64, 128]))
    [64, 128]
    """
    ordered = sorted(set(scales))
    # Up to five take the middle of the map: black on a dark page and yellow on paper would vanish.
    # More need all of a map with more hues.
    low, high, name = (0.18, 0.80, "viridis") if len(ordered) <= 5 else (0.12, 0.92, "plasma")
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
    return GROUP_COLORS[index % len(GROUP_COLORS)], GROUP_MARKERS[index % len(GROUP_MARKERS)]


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


def share_labels(panels: Sequence[Axes]) -> None:
    """Keep the y label of the first of several panels side by side, and the legend of the last."""
    for ax in panels[1:]:
        ax.set_ylabel("")
    for ax in panels[:-1]:
        if legend := ax.get_legend():
            legend.remove()


def power_ticks(ax: Axes, values: Iterable[float]) -> None:
    """A log2 x axis whose ticks are the given scales, written out."""
    ticks = sorted(set(values))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
