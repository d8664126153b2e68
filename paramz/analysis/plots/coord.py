"""Figures of a coordinate check: sizes of activations, and of their changes, against scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from paramz.analysis.columns import require
from paramz.analysis.plots.style import (
    legend_beside,
    new_axes,
    new_row,
    power_ticks,
    scale_colors,
    share_labels,
    theme,
    wrapped,
)
from paramz.analysis.slopes import axis_of

PANELS = 5
_TITLE = 34  # letters above a panel
_ONE = ("parametrization", "optimizer", "lr")  # of which a line shows one check


def coord_check(
    df: pd.DataFrame,
    *,
    quantity: str = "delta",
    modules: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Size against scale, one panel per module, one line per training step.

    Args:
        df: columns ``step, module, quantity, rms``, one of ``width``, ``depth`` and ``experts``,
            and possibly ``seed``: the table of `paramz.coord_check`.
        quantity: ``"output"``, ``"delta"`` (output minus output at the first step) or ``"update"``.
        modules: which, in order; by default those of `steepest`.
        axes: one per module; by default a new figure.

    Returns:
        the axes.
    """
    shown = list(modules) if modules is not None else steepest(df, quantity)
    panels = list(axes) if axes is not None else new_row(len(shown), width=2.5, height=2.7)
    for ax, module in zip(panels, shown, strict=True):
        coord_module(df, module, quantity, ax)
        ax.set_title(wrapped(module, _TITLE), fontsize=8)
    share_labels(panels)
    return panels


def coord_module(
    df: pd.DataFrame, module: str, quantity: str = "delta", ax: Axes | None = None
) -> Axes:
    """One module's root mean square against scale, a line per step, averaged over seeds.

    Bands are from the lowest to the highest seed.

    Args:
        df: as in `coord_check`.
        module: its name in the column ``module``.
        quantity: which rows.
        ax: where to draw; by default a new figure.

    Returns:
        the axes.

    Raises:
        ValueError: the table has no such rows, or those of several checks; the message lists what
            there is.
    """
    require(df, "step", "module", "quantity", "rms")
    axis = axis_of(df)
    for name in _ONE:
        if name in df.columns and len(values := df[name].unique().tolist()) > 1:
            raise ValueError(
                f"the table holds {len(values)} values of {name} ({', '.join(map(str, values))}), "
                f"and a line would be their mean: select one, as df[df.{name} == {values[0]!r}]"
            )
    ax = new_axes(ax)
    rows = df[(df["module"] == module) & (df["quantity"] == quantity) & (df["rms"] > 0)]
    if rows.empty:
        raise ValueError(
            f"no {quantity!r} above zero for module {module!r}; modules: "
            f"{', '.join(df['module'].unique())}; quantities: {', '.join(df['quantity'].unique())}"
        )
    rows = rows.assign(log2=np.log2(rows["rms"]))
    # One colour in all panels, whatever starts to change a step later than others.
    steps = df.loc[(df["quantity"] == quantity) & (df["rms"] > 0), "step"]
    with theme():
        sns.lineplot(
            rows,
            x=axis,
            y="log2",
            hue="step",
            palette=scale_colors(steps),
            errorbar=("pi", 100),
            err_kws={"linewidth": 0},
            marker="o",
            markersize=4,
            markeredgewidth=0,
            legend="full",
            ax=ax,
        )
    power_ticks(ax, rows[axis])
    ax.set_xlabel(axis)
    ax.set_ylabel(f"log₂ rms of {quantity}")
    legend_beside(ax, "step")
    return ax


def steepest(df: pd.DataFrame, quantity: str = "delta", count: int = PANELS) -> list[str]:
    """The modules whose size changes fastest with scale at the last step, and the model's output.

    What is not finite at some scale changes fastest. The last readout and the model's own output
    are always among them, where they were measured: a scheme is judged by the function that it
    trains.

    Args:
        df: as in `coord_check`; several checks over the same scale may be stacked.
        quantity: which rows.
        count: how many at most.

    Returns:
        names of modules, in the model's order.

    >>> rows = [{"module": m, "width": w, "step": 1, "quantity": "delta", "rms": w**p}
    ...         for m, p in (("a", 0.0), ("b", 0.5), ("c", -1.0)) for w in (64, 128)]
    >>> steepest(pd.DataFrame(rows), count=2)
    ['b', 'c']
    """
    require(df, "step", "module", "quantity", "rms")
    axis = axis_of(df)
    rows = df[(df["quantity"] == quantity) & ~(df["rms"] <= 0)]
    rows = rows[rows["step"] == rows["step"].max()]
    keys = [k for k in _ONE if k in rows.columns]
    slopes: dict[str, float] = {}
    for name, cell in rows.groupby([*keys, "module"], sort=False):
        if cell[axis].nunique() > 1:
            known = np.isfinite(cell["rms"]).all()
            slope = np.polyfit(np.log2(cell[axis]), np.log2(cell["rms"]), 1)[0] if known else np.inf
            module = str(name[-1])
            slopes[module] = max(slopes.get(module, 0.0), abs(float(slope)))
    forward = df[df["quantity"] == "output"] if (df["quantity"] == "output").any() else df
    names = dict.fromkeys([*forward["module"], *df["module"]])
    found = [m for m in names if m in slopes]
    kept = [m for m in _outputs(df) if m in slopes][-count:]
    # Of modules that are as steep the first ones, the same whenever the picture is drawn.
    rest = sorted((m for m in found if m not in kept), key=lambda m: slopes[m], reverse=True)
    chosen = {*kept, *rest[: count - len(kept)]}
    return [m for m in found if m in chosen]


def _outputs(df: pd.DataFrame) -> list[str]:
    """The last readout, and the model's own output where it has rows of its own."""
    readouts: list[str] = []
    if "role" in df.columns:
        readouts = list(df.loc[df["role"] == "output", "module"].unique())
    return [*readouts[-1:], *(["(model)"] if (df["module"] == "(model)").any() else [])]
