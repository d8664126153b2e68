"""Figures of scaling laws: the law with what was held out, and its residuals."""

from __future__ import annotations

import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paramz.analysis.columns import Array, positive
from paramz.analysis.counts import LEAST
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.plots.style import (
    INK,
    count_ticks,
    group_style,
    legend_above,
    new_axes,
    power_ticks,
)

# How rows that were held out are marked.
_STAR: dict[str, Any] = {
    "linestyle": "none",
    "marker": "*",
    "markersize": 11,
    "markerfacecolor": "none",
}
# Up to this many rows have marks of the usual size; more of them get smaller ones.
_FEW = 40


def law(
    fit: LawFit, *, to: float | None = None, label: str = "", index: int = 0, ax: Axes | None = None
) -> Axes:
    """Data, law and 95% predictive band against the input; held-out rows are stars.

    A law with two inputs is drawn as measured against fitted response, where a perfect fit lies on
    the diagonal.

    Args:
        fit: the fitted law.
        to: how far to draw, in the input; by default to the largest row, held out or not.
        label: what the legend calls it.
        index: which colour and marker of the groups to take.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.
    """
    ax = new_axes(ax)
    color, marker = group_style(index)
    if len(fit.columns) == 1:
        x, x_held = _draw_over_input(ax, fit, to, color)
    else:
        x, x_held = _draw_over_fitted(ax, fit)
    ax.plot(
        x,
        fit.data[fit.loss],
        linestyle="none",
        marker=marker,
        markersize=_mark(len(fit.data)),
        color=color,
        label=label or "fitted",
    )
    if len(fit.held_out):
        ax.plot(
            x_held,
            fit.held_out[fit.loss],
            markeredgewidth=1.2,
            color=color,
            label=f"{label} held out".strip(),
            **_STAR,
        )
    ax.set_ylabel(fit.loss)
    legend_above(ax, columns=2)
    return ax


def _mark(rows: int) -> float:
    """Size of a mark, in points."""
    return float(plt.rcParams["lines.markersize"] * min(1.0, (_FEW / rows) ** 0.5))


def _draw_over_input(ax: Axes, fit: LawFit, to: float | None, color: str) -> tuple[Array, Array]:
    """Draw a law of one input with its band.

    Returns:
        where the fitted and the held-out rows stand on the x axis.
    """
    column = next(iter(fit.columns.values()))
    rows = pd.concat([fit.data, fit.held_out])
    low, high = positive(rows, column).min(), positive(rows, column).max()
    x = np.geomspace(low, max(high, to or high), 200)
    band = predict_quietly(fit, pd.DataFrame({column: x}))
    ax.plot(x, band["mean"], color=color)
    if not fit.unclear():  # otherwise the band would fill the figure
        ax.fill_between(x, band["lo"], band["hi"], color=color, alpha=0.18, linewidth=0)
    drawn = np.concatenate([np.asarray(line.get_xdata(), float) for line in ax.lines])
    drawn = drawn[drawn > 0]
    least, most = drawn.min(), drawn.max()  # of the laws that were drawn before, too
    if 2 * least <= most < 100 * least and least < LEAST:
        power_ticks(ax, least * 2.0 ** np.arange(np.log2(most / least) + 0.01))
    else:
        count_ticks(ax, "x", least, most)
    ax.set_xlabel(column)
    # The y axis follows the data: the band of a law that is not determined would flatten them.
    seen = rows[fit.loss].astype(float)
    pad = 0.25 * (seen.max() - seen.min())
    bottom, top = min(seen.min(), float(band["mean"].min())) - pad, seen.max() + pad
    if ax.lines[:-1]:  # another law has been drawn
        bottom, top = min(bottom, ax.get_ylim()[0]), max(top, ax.get_ylim()[1])
    ax.set_ylim(bottom, top)
    return positive(fit.data, column), positive(fit.held_out, column)


def _draw_over_fitted(ax: Axes, fit: LawFit) -> tuple[Array, Array]:
    """Draw the diagonal on which a perfect fit lies.

    Returns:
        the fitted responses of the fitted and of the held-out rows.
    """
    x, x_held = (
        predict_quietly(fit, rows)["mean"].to_numpy() if len(rows) else np.array([])
        for rows in (fit.data, fit.held_out)
    )
    both = np.concatenate([x, x_held])
    ends = [both.min(), both.max()]
    ax.plot(ends, ends, color=INK, linewidth=0.8)
    ax.set_xlabel(f"fitted {fit.loss}")
    return x, x_held


def predict_quietly(fit: LawFit, rows: pd.DataFrame, interval: str = "predictive") -> pd.DataFrame:
    """Predictions without the warning that they lie far outside the data, which a figure shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LawWarning)
        return fit.predict(rows, interval=interval)


def residuals(fit: LawFit, *, against: str | None = None, ax: Axes | None = None) -> Axes:
    """Relative residuals against a column; a trend here is what the law does not capture.

    Args:
        fit: the fitted law.
        against: a column of the data; by default the first input's.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.
    """
    ax = new_axes(ax)
    column = against or next(iter(fit.columns.values()))
    color, marker = group_style(0)
    ax.axhline(0, color=INK, linewidth=0.8)
    in_log = fit.choices.residuals == "log"
    if in_log:  # else delta is another share of every response
        ax.axhspan(-100 * fit.delta, 100 * fit.delta, color=INK, alpha=0.12, linewidth=0)
    ax.plot(
        positive(fit.data, column),
        100 * fit.residuals,
        linestyle="none",
        marker=marker,
        markersize=_mark(len(fit.data)),
        color=color,
    )
    if len(fit.held_out):
        held = fit.holdout_error["error"].astype(float)
        # An error is prediction minus measurement, a residual measurement minus law.
        ax.plot(
            positive(fit.held_out, column),
            -100 * np.log1p(held),
            color=color,
            **_STAR,
        )
    seen = positive(pd.concat([fit.data, fit.held_out]), column)
    count_ticks(ax, "x", seen.min(), seen.max())
    ax.set_xlabel(column)
    ax.set_ylabel(f"residual, % of {fit.loss}" + " (grey: within delta)" * in_log)
    return ax
