"""Heat maps of regret: what the best value of one scale costs at another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from paramz.analysis.counts import count_label
from paramz.analysis.plots.style import new_axes, new_row, theme, wrapped
from paramz.analysis.runs import ALL, led
from paramz.analysis.transfer import Transfer

# Regret below this share of the loss is none.
LOSES_NOTHING = 1e-4
REGRET_COLORS = "cividis_r"


def regrets(found: Transfer) -> list[Axes]:
    """A heat map of regret for each group, side by side, with one scale of colours and its bar.

    Args:
        found: from `paramz.analysis.transfer`.

    Returns:
        the axes without that of the bar, one per group that loses anything that the colours
        can show, or has a value outside of another scale's grid; none where there is none.
    """
    if not np.isfinite(found.regret["regret"]).any():
        return []
    least = float(_norm(found).vmin or 0)
    lost = found.regret["regret"]
    losing = found.regret[(lost > least) | lost.isna()]["group"].unique()
    shown = [g for g in found.groups if g in losing]
    if not shown:
        return []
    size = found.optima["scale"].nunique()
    panels = new_row(len(shown), width=1.6 + 0.62 * size, height=1.1 + 0.5 * size, share=False)
    for panel, group in zip(panels, shown, strict=True):
        regret(found, group, panel)
        panel.set_title("" if group == ALL else wrapped(group, int(14 + 8 * size)))
    for panel in panels[1:]:
        panel.set_ylabel("")
    _color_bar(found, panels)
    return panels


def regret(found: Transfer, group: str, ax: Axes | None = None) -> Axes:
    """Heat map of regret: tuned at one scale (down), evaluated at another (across).

    Cells show the loss above the lowest at that scale: ``div.`` where the run diverged, a dash
    where it lies outside the grid. Colours are the same for all groups.

    Args:
        found: from `paramz.analysis.transfer`.
        group: one of ``found.groups``.
        ax: where to draw; by default a new figure, which has a bar of the colours.

    Returns:
        the axes.
    """
    size = found.optima["scale"].nunique()
    given, ax = ax, new_axes(ax, (1.6 + 0.62 * size, 1.1 + 0.5 * size))
    ax.set(xscale="linear", yscale="linear")
    _regret_panel(found, group, ax)
    ax.set_title(led(group, f"{found.loss} lost"))
    if given is None:
        _color_bar(found, [ax])
    return ax


def _least(found: Transfer) -> float:
    """The regret below which nothing is lost."""
    return LOSES_NOTHING * float(found.optima["best"].abs().max())


def _norm(found: Transfer) -> LogNorm:
    """The colours of all groups: regret spans orders of magnitude."""
    finite = found.regret["regret"][np.isfinite(found.regret["regret"])]
    least = _least(found)
    largest = max(float(finite.max()), 2 * least)
    return LogNorm(max(least, 1e-3 * largest), largest, clip=True)


def _color_bar(found: Transfer, panels: list[Axes]) -> None:
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    with theme():
        bar = figure.colorbar(ScalarMappable(_norm(found), REGRET_COLORS), ax=panels, shrink=0.8)
        bar.set_label(f"{found.loss} lost")


def _regret_panel(found: Transfer, group: str, ax: Axes) -> None:
    rows = found.regret[found.regret["group"] == group]
    value = rows.pivot(index="tuned_at", columns="evaluated_at", values="regret")
    status = rows.pivot(index="tuned_at", columns="evaluated_at", values="status").to_numpy()
    numbers, least, norm = value.to_numpy(dtype=float), _least(found), _norm(found)
    text = np.array([[f"{v:.2g}" if v > least else "0" for v in row] for row in numbers])
    for word, short in (("diverged", "div."), ("out of grid", "–")):
        text[status == word] = short
    names = [count_label(s) for s in value.columns.to_numpy(dtype=float)]
    # What diverged is as dark as the worst.
    low, high = float(norm.vmin or 0), float(norm.vmax or 1)
    shade = np.where(np.isnan(numbers), low, np.clip(numbers, low, high))
    with theme():
        sns.heatmap(
            pd.DataFrame(shade, names, names),
            annot=text,
            fmt="",
            norm=norm,
            cmap=REGRET_COLORS,
            cbar=False,
            annot_kws={"fontsize": 7},
            ax=ax,
        )
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.set_yticks(ax.get_yticks(), names, rotation=0)
    ax.set_xlabel(f"{found.scale} evaluated")
    ax.set_ylabel(f"{found.scale} tuned at")
