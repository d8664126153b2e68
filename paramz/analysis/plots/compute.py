"""Figures of compute: the efficient frontier, contours over N and D, isoFLOP curves."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from paramz.analysis.columns import Array, numbers, positive
from paramz.analysis.counts import count_label
from paramz.analysis.isoflop import isoflop_minima, parabola
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.plots.law import predict_quietly
from paramz.analysis.plots.style import (
    INK,
    count_ticks,
    group_style,
    legend_above,
    legend_beside,
    new_axes,
    scale_colors,
    scale_markers,
    theme,
)

_SIZES = "viridis"
_LEVELS = 9
# Points of the frontier, between which it is interpolated, and of each side of the contours.
_KNOTS, _FINE = 9, 80


def frontier(
    fit: LawFit, *, to: float | None = None, per: float = 6.0, ax: Axes | None = None
) -> Axes:
    """Loss against compute: the runs, coloured by N, and the least loss that the law has there.

    Args:
        fit: a law of N and D.
        to: how far to draw, in FLOP; by default to the largest run.
        per: FLOP per parameter and token, in the units of N and D.
        ax: where to draw; by default a new figure.

    Returns:
        the axes; the bar of colours has its own.

    Raises:
        ValueError: the law is not one of a loss over N and D, or its rows do not determine how to
            divide compute.
    """
    runs = pd.concat([fit.data, fit.held_out])
    sizes = positive(runs, fit.columns.get("N", next(iter(fit.columns.values()))))
    best = _best(fit, runs, per, to)
    ax = new_axes(ax, (4.6, 3.2))
    compute = per * sizes * positive(runs, fit.columns["D"])
    color, _ = group_style(1)
    band = predict_quietly(fit, best, "confidence")
    ax.plot(best["C"], band["mean"], color=color, label="least loss of the law, 95%")
    ax.fill_between(best["C"], band["lo"], band["hi"], color=color, alpha=0.25, linewidth=0)
    norm = LogNorm(sizes.min(), sizes.max())
    with theme():
        sns.scatterplot(
            x=compute,
            y=runs[fit.loss].astype(float).to_numpy(),
            hue=sizes,
            hue_norm=norm,
            palette=_SIZES,
            s=16,
            linewidth=0.3,
            edgecolor="white",
            legend=False,
            ax=ax,
        )
        figure = ax.get_figure(root=True)
        assert figure is not None
        bar = figure.colorbar(ScalarMappable(norm, _SIZES), ax=ax)
    count_ticks(bar.ax, "y", sizes.min(), sizes.max())
    bar.set_label(fit.columns["N"])
    count_ticks(ax, "x", best["C"].min(), best["C"].max())
    ax.set_xlabel(f"FLOP ({per:g} {fit.columns['N']} × {fit.columns['D']})")
    ax.set_ylabel(fit.loss)
    legend_above(ax)
    return ax


def contours(
    fit: LawFit, *, to: float | None = None, per: float = 6.0, ax: Axes | None = None
) -> Axes:
    """Contours of the law over N and D, with the runs and the division that loses least.

    Args:
        fit: a law of N and D.
        to: how far to draw, in FLOP; by default as far as the runs.
        per: FLOP per parameter and token, in the units of N and D.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.

    Raises:
        ValueError: the law is not one of a loss over N and D.
    """
    _check(fit)
    runs = pd.concat([fit.data, fit.held_out])
    n, d = (positive(runs, fit.columns[k]) for k in "ND")
    try:
        best = _best(fit, runs, per, to)
    except ValueError:  # the rows do not determine it; the contours they do
        best = pd.DataFrame({"C": [], fit.columns["N"]: [], fit.columns["D"]: []})
    ax = new_axes(ax, (4.4, 3.6))
    ends = [
        (min(x.min(), best[c].min()) / 1.2, max(x.max(), best[c].max()) * 1.2)
        if len(best) and to
        else (x.min() / 1.2, x.max() * 1.2)
        for x, c in ((n, fit.columns["N"]), (d, fit.columns["D"]))
    ]
    across, up = np.meshgrid(*(np.geomspace(*e, _FINE) for e in ends))
    flat = pd.DataFrame({fit.columns["N"]: across.ravel(), fit.columns["D"]: up.ravel()})
    loss = predict_quietly(fit, flat, "none")["mean"].to_numpy().reshape(across.shape)
    levels = _levels(loss)
    ax.contourf(across, up, loss, levels=levels, cmap="Blues", alpha=0.55, extend="both")
    lines = ax.contour(across, up, loss, levels=levels, colors=INK, linewidths=0.7)
    ax.plot(n, d, linestyle="none", marker="o", markersize=3, color=INK, alpha=0.7, label="runs")
    if len(best):
        ax.plot(
            best[fit.columns["N"]],
            best[fit.columns["D"]],
            color=group_style(1)[0],
            linewidth=2,
            label="least loss per FLOP",
        )
    for which, (low, high) in zip("xy", ends, strict=True):
        count_ticks(ax, which, low, high, most=5)
        ax.set(**{f"{which}lim": (low, high)})
    ax.grid(visible=False)
    with theme():
        for text in ax.clabel(lines, fmt=lambda v: f"{v:.3g}", fontsize=7):
            text.set_bbox({"facecolor": "white", "alpha": 0.75, "pad": 0.6, "edgecolor": "none"})
    ax.set_xlabel(fit.columns["N"])
    ax.set_ylabel(fit.columns["D"])
    legend_above(ax, columns=2)
    return ax


def isoflop(
    df: pd.DataFrame,
    *,
    N: str = "N",
    C: str = "C",
    loss: str = "loss",
    ax: Axes | None = None,
) -> Axes:
    """Loss against N at each compute, with the minima of `isoflop_minima` and their windows.

    Filled marks are in the window and fitted, hollow ones are not. A picture, not an estimator: the
    minima are biased even without noise, where the sampled range is wide or off-centre or alpha
    differs from beta (arXiv 2603.22339). Fit the law instead.

    Args:
        df: one row per run.
        N: column of the parameters.
        C: column of the compute; equal values belong together.
        loss: column of the loss.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.

    Raises:
        KeyError: a column is missing.
        ValueError: no compute has the three runs that a parabola needs, or a column holds values
            that cannot be used.
    """
    found = isoflop_minima(df, N=N, C=C, loss=loss)
    warnings.warn(
        "minima of isoFLOP parabolas are biased; take the allocation from a fitted law",
        LawWarning,
        stacklevel=2,
    )
    ax = new_axes(ax, (4.6, 3.2))
    colors, markers = scale_colors(found["C"]), scale_markers(found["C"])
    n, c, y = positive(df, N), positive(df, C), numbers(df, loss)
    usable, fitted_rows = np.isfinite(y), np.zeros(len(y), dtype=bool)
    for _, row in found.iterrows():
        here = usable & (c == row["C"])
        color, marker = colors[row["C"]], markers[row["C"]]
        used = here & (n >= row["low"] * (1 - 1e-9)) & (n <= row["high"] * (1 + 1e-9))
        fitted_rows |= used
        ax.plot(n[used], y[used], marker, color=color, label=_label(row["C"]))
        ax.plot(n[here & ~used], y[here & ~used], marker, color=color, markerfacecolor="none")
        line = np.linspace(np.log(row["low"]), np.log(row["high"]), 100)
        fitted, middle = parabola(np.log(n[used]), y[used])
        ax.plot(np.exp(line), np.polyval(fitted, line - middle), color=color, linewidth=1.2)
        if not row["flag"]:
            reach = np.nan_to_num(np.abs(row[["N_lo", "N_hi"]].astype(float) - row["N"]))
            ax.errorbar(
                row["N"],
                row["loss"],
                xerr=reach[:, None],
                marker="*",
                markersize=9,
                markeredgewidth=0.5,
                color=INK,
                elinewidth=1.2,
                capsize=3,
                capthick=1.2,
                zorder=5,
            )
    shown = usable & np.isin(c, found["C"])
    # The y axis follows what is fitted: one run that went wrong would flatten the parabolas.
    low, high = float(y[fitted_rows].min()), float(y[fitted_rows].max())
    room = high - low or 0.1
    bottom, top = max(y[shown].min(), low - room), min(y[shown].max(), high + room)
    ax.set_ylim(bottom - 0.05 * room, top + 0.05 * room)
    count_ticks(ax, "x", n[shown].min(), n[shown].max())
    ax.set_xlabel(N)
    ax.set_ylabel(loss)
    legend_beside(ax, C)
    with theme():
        ax.set_title("isoFLOP minima are biased: a picture only", fontsize=8)
    return ax


def _label(compute: float) -> str:
    digits, _, power = f"{compute:.2g}".partition("e+")
    return rf"${digits}{{\times}}10^{{{power}}}$" if power else count_label(compute)


def _check(fit: LawFit) -> None:
    if fit.form.inputs != ("N", "D"):
        raise ValueError(
            f"the law {fit.form.name!r} has the inputs {', '.join(fit.form.inputs)}; this figure "
            "is of laws of N and D, such as 'chinchilla'"
        )


def _best(fit: LawFit, runs: pd.DataFrame, per: float, to: float | None) -> pd.DataFrame:
    """Compute and the N and D that lose least there, named as in the data."""
    _check(fit)
    n, d = (fit.columns[k] for k in "ND")
    compute = per * positive(runs, n) * positive(runs, d)
    ends = float(compute.min()), max(float(compute.max()), to or 0.0)
    knots = np.geomspace(*ends, _KNOTS)
    found = fit.optimal_allocation(knots.tolist(), per=per, level=None)
    fine = np.geomspace(*ends, _FINE)

    def between(name: str) -> Array:
        logs = np.log(found[name].to_numpy(dtype=float))
        return np.asarray(np.exp(np.interp(np.log(fine), np.log(knots), logs)))

    return pd.DataFrame({"C": fine, n: between("N"), d: between("D")})


def _levels(loss: Array) -> Array:
    """Round levels of a loss, closer where it is low."""
    floor = float(loss.min())
    raw = floor + (float(loss.max()) - floor) * np.linspace(0.03, 0.95, _LEVELS) ** 2
    digits = 2
    while len(np.unique(np.round(raw, digits))) < _LEVELS and digits < 8:
        digits += 1
    return np.unique(np.round(raw, digits))
