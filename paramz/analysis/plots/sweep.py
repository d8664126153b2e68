"""Figures of a sweep: loss against the hyperparameter, the optimum's path, regret, collapse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from paramz.analysis.collapse import Collapse
from paramz.analysis.counts import count_label
from paramz.analysis.plots.style import (
    INK,
    group_style,
    legend_above,
    legend_beside,
    new_axes,
    new_row,
    power_ticks,
    scale_colors,
    scale_markers,
    share_labels,
    theme,
    wrapped,
)
from paramz.analysis.runs import ALL
from paramz.analysis.transfer import Transfer

# Beyond this ratio of the worst to the best optimum, a linear axis hides the small ones.
LOG_AXIS = 5.0
# A linear axis shows this share of the losses that lie within so many octaves of their optimum.
SHOWN, NEAR = 0.75, 3.0
_TITLE = 36  # letters above a panel


def transfer(found: Transfer, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Loss against log2 of the hyperparameter, one panel per group, one line per scale.

    Marks at the top are runs that diverged (crosses) and losses above the axis (triangles).

    Args:
        found: from `paramz.analysis.transfer`.
        axes: one per group; by default a new figure.

    Returns:
        the axes.
    """
    panels = list(axes) if axes is not None else new_row(len(found.groups))
    for ax, group in zip(panels, found.groups, strict=True):
        loss_curves(found, group, ax)
        ax.set_title("" if group == ALL else wrapped(group, _TITLE))
    lo, hi = found.curves["log2_hp"].min(), found.curves["log2_hp"].max()
    for ax in panels:
        ax.set_xlim(lo - 0.4, hi + 0.4)
    share_labels(panels)
    return panels


def loss_curves(found: Transfer, group: str, ax: Axes | None = None) -> Axes:
    """One group's loss curves with each optimum ringed.

    Bands are from the lowest to the highest seed. Marks at the top are runs that diverged (crosses)
    and losses above the axis (triangles).

    Args:
        found: from `paramz.analysis.transfer`.
        group: one of ``found.groups``.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.
    """
    ax = new_axes(ax)
    curves = found.curves[found.curves["group"] == group]
    optima = found.optima[found.optima["group"] == group].set_index("scale")
    scales = np.unique(found.curves["scale"])
    colors, markers = scale_colors(scales), scale_markers(scales)
    kind, low, high = _range(found)
    for position, size in enumerate(np.unique(curves["scale"])):
        color, curve = colors[size], curves[curves["scale"] == size]
        alive = np.isfinite(curve["loss"])
        x, y = curve["log2_hp"], curve["loss"]
        with theme():
            sns.lineplot(
                x=x[alive] if alive.any() else x[:1],
                y=y[alive] if alive.any() else [np.nan],
                color=color,
                marker=markers[size],
                markersize=4.5,
                markeredgewidth=0,
                label=count_label(size),
                legend=False,
                ax=ax,
            )
        if (curve["seeds"] > 1).any():
            band = curve["low"][alive], curve["high"][alive]
            ax.fill_between(x[alive], *band, color=color, alpha=0.2, linewidth=0)
        _at_the_top(ax, x[~alive], position, color, "x")
        _at_the_top(ax, x[alive & (y > high)], position, color, "^")
    ax.plot(optima["log2_opt"], optima["best"], color=INK, linewidth=0.8, linestyle=":", zorder=4)
    for size, at, best in zip(optima.index, optima["log2_opt"], optima["best"], strict=True):
        ax.scatter(
            at,
            best,
            s=52,
            facecolor=colors[size],
            edgecolor=INK,
            linewidth=1.1,
            zorder=5,
        )
    ax.set_xlabel(f"log₂ {found.hp}")
    ax.set_ylabel(found.loss)
    legend_beside(ax, found.scale)
    ax.set_yscale(kind)
    ax.set_ylim(low, high)
    return ax


def _at_the_top(ax: Axes, x: pd.Series, position: int, color: str, marker: str) -> None:
    """Marks along the upper edge, those of each scale a little lower."""
    ax.plot(
        x,
        np.full(len(x), 0.99 - 0.025 * position),
        linestyle="none",
        marker=marker,
        markersize=3.5,
        color=color,
        transform=blended_transform_factory(ax.transData, ax.transAxes),
    )


def _range(found: Transfer) -> tuple[str, float, float]:
    """Scale and limits of the loss axis: all optima and what surrounds them, not the cliffs."""
    finite = found.curves["loss"][np.isfinite(found.curves["loss"])]
    best = found.optima["best"]
    if best.min() > 0 and best.max() > LOG_AXIS * best.min():
        return "log", float(best.min() / 1.6), float(finite.max() * 1.6)
    near = found.curves.merge(found.optima[["group", "scale", "log2_opt"]])
    near = near[np.isfinite(near["loss"])]
    near = near[(near["log2_hp"] - near["log2_opt"]).abs() <= NEAR]
    floor, ceiling = float(best.min()), float(max(near["loss"].quantile(SHOWN), best.max()))
    pad = 0.06 * (ceiling - floor) or 0.1
    return "linear", floor - pad, ceiling + 3 * pad


def optima(found: Transfer, ax: Axes | None = None) -> Axes:
    """Where the optimum lies at each scale, with intervals, one line per group.

    An interval that is open at one side (the grid ends before the loss rises) is an arrow.

    Args:
        found: from `paramz.analysis.transfer`.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.
    """
    ax = new_axes(ax)
    drift = found.drift.set_index("group")
    for index, group in enumerate(found.groups):
        color, marker = group_style(index)
        rows = found.optima[found.optima["group"] == group]
        # Groups side by side, a few percent apart, so that their intervals do not overlap.
        x = rows["scale"].to_numpy() * 1.03 ** (index - (len(found.groups) - 1) / 2)
        y = rows["log2_opt"].to_numpy()
        below, above = y - rows["lo"].to_numpy(), rows["hi"].to_numpy() - y
        bars = np.stack([below, above])
        ax.errorbar(
            x,
            y,
            yerr=np.where(np.isfinite(bars), bars, 0),
            color=color,
            marker=marker,
            capsize=2,
            elinewidth=1,
            label=("" if group == ALL else f"{group}: ")
            + f"{_in_words(*drift.loc[group, ['slope', 'lo', 'hi']])} per doubling",
        )
        for sign, open_side in ((-1, np.isinf(below)), (1, np.isinf(above))):
            for xi, yi in zip(x[open_side], y[open_side], strict=True):
                end = yi + 0.6 * sign
                ax.plot([xi, xi], [yi, end], color=color, linewidth=1)
                ax.plot(xi, end, color=color, marker="^" if sign > 0 else "v")
    scales = np.unique(found.optima["scale"])
    power_ticks(ax, scales)
    # What a point stands for is its scale, and not where it was put.
    ax.fmt_xdata = lambda x: f"{scales[np.abs(np.log(scales / x)).argmin()]:.4g}"
    ax.set_xlabel(found.scale)
    ax.set_ylabel(f"log₂ of the best {found.hp}")
    low, high = ax.get_ylim()
    if high - low < 2:  # an octave of noise must not fill the figure
        ax.set_ylim((low + high) / 2 - 1, (low + high) / 2 + 1)
    legend_above(ax)
    return ax


def _in_words(slope: float, lo: float, hi: float) -> str:
    """The drift and its interval for a legend; no number where too few optima were seen."""
    if np.isfinite(slope):
        return f"{round(slope, 2) + 0.0:+.2f} [{lo:+.2f}, {hi:+.2f}] octave"
    if np.isfinite(lo):
        return f"{lo:+.2f} octave or more"
    return f"{hi:+.2f} octave or less" if np.isfinite(hi) else "octaves unknown"


def collapse(found: Collapse, ax: Axes | None = None) -> Axes:
    """Normalized training curves, a line per scale: one curve where hyperparameters transfer.

    Args:
        found: from `paramz.analysis.collapse`.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.
    """
    ax = new_axes(ax)
    colors = scale_colors(found.curves["scale"])
    for size, color in colors.items():
        curve = found.curves[found.curves["scale"] == size]
        ax.plot(curve["progress"], curve["loss"], color=color, label=count_label(size))
    ax.set_xlabel("share of training")
    ax.set_ylabel("(loss − E) / (final loss − E)")
    note = "floor at its bound" if found.at_bound else f"E = {found.floor:.3g}"
    noise = f", seeds {found.noise:.2%}" if np.isfinite(found.noise) else ""
    ax.set_title(f"{note}; spread {found.spread:.2%}{noise}", fontsize=8)
    legend_beside(ax)
    return ax
