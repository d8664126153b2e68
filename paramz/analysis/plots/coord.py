"""Figures of a coordinate check: sizes of activations, and of their changes, against scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from paramz.analysis.causes import departing
from paramz.analysis.columns import require
from paramz.analysis.coordinates import Verdict, judge
from paramz.analysis.plots.style import (
    GROUP_COLORS,
    legend_beside,
    new_axes,
    new_row,
    power_ticks,
    scale_colors,
    share_labels,
    theme,
    wrapped,
)
from paramz.analysis.shrinking import may_shrink
from paramz.analysis.slopes import Slope, axis_of

PANELS = 5
_TITLE = 34  # letters above a panel
_MARKED = GROUP_COLORS[1]  # of the title of what the verdict names, on paper and on a dark page
_JUDGED = {"parametrization", "optimizer", "lr", "role"}
_ONE = ("parametrization", "optimizer", "lr")  # of which a line shows one check


def coord_check(
    df: pd.DataFrame,
    *,
    quantity: str | None = None,
    modules: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
    verdict: Verdict | None = None,
) -> list[Axes]:
    """Size against scale, one panel per module, one line per training step.

    Where the check fails or is undecided, the first panel is what the verdict names, its title
    marked and with the slope: that module, and the quantity that departs. Modules that theory lets
    shrink, as what only reads out does, are marked as well.

    Args:
        df: columns ``step, module, quantity, rms``, one of ``width``, ``depth``, ``experts``,
            ``rank`` and ``density``, and possibly ``seed``: the table of `paramz.coord_check`.
        quantity: what to draw of every module, and nothing else; by default ``"delta"``, behind
            what the verdict names. ``"output"``; ``"delta"`` (output minus output at the first
            step); ``"update"`` (the part of it that the module's own weights made); ``"reach"``
            (attention logits once queries and keys align); and the evidence ``"aligned"``,
            ``"zeroed"``, ``"input"``, ``"expected"`` and ``"step"``.
        modules: which, in order; by default those of `steepest`, five or as many as there are axes.
        axes: one per panel; by default a new figure.
        verdict: whose culprit comes first; by default that of `paramz.judge`, unless quantity or
            modules are given.

    Returns:
        the axes.

    Raises:
        ValueError: the table has no such quantity, or no module of which it is above zero at two
            sizes; there are more or fewer axes than panels; as in `coord_module`.
    """
    require(df, "step", "module", "quantity", "rms")
    drawn = "delta" if quantity is None else quantity
    if quantity is not None and not (df["quantity"] == quantity).any():
        raise ValueError(
            f"no quantity {quantity!r} in this table; it has {', '.join(df['quantity'].unique())}"
        )
    named, judged = None, verdict
    if judged is None and quantity is None and modules is None:
        judged = _judged(df)
    if judged is not None:
        named = departing(judged.slopes, axis_of(df))
    first = [(named.module, named.quantity)] if named is not None else []
    others = modules
    if others is None:
        count = PANELS if axes is None else len(axes)
        others = steepest(df, drawn, count - len(first))
        if any(panel == (m, drawn) for panel in first for m in others):
            others = steepest(df, drawn, count)
    shown = first + [(m, drawn) for m in others if (m, drawn) not in first]
    if not shown:
        raise ValueError(f"no module's {drawn} is above zero at two sizes or more")
    if axes is not None and len(axes) != len(shown):
        raise ValueError(
            f"{len(axes)} axes for {len(shown)} panels, {', '.join(f'{m} {q}' for m, q in shown)}: "
            f"give {len(shown)}, or none for a new figure; modules= says which are drawn"
        )
    alike = len({q for _, q in shown}) == 1
    if axes is None:
        panels = new_row(len(shown), width=2.5, height=2.7, share=alike)
    else:
        panels = list(axes)
    # One colour in all panels, whatever starts to change a step later than others.
    of_any = df["quantity"].isin([q for _, q in shown]) & (df["rms"] > 0)
    colors = scale_colors(df.loc[of_any, "step"])
    for ax, (module, what) in zip(panels, shown, strict=True):
        _draw(df, module, what, ax, colors)
        excused = " \n(may shrink)" if module in may_shrink(df, what) else ""
        ax.set_title(wrapped(module, _TITLE) + excused, fontsize=8)
    if judged is not None and named is not None:
        _mark(panels[0], judged, named, axis_of(df))
    if axes is None and not alike:
        _same_span(panels)
    label = panels[1].get_ylabel() if not alike else ""
    share_labels(panels)
    if not alike:
        panels[1].set_ylabel(label)
        lines = {
            n: h for ax in panels for h, n in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        legend_beside(panels[-1], "step", {name: lines[name] for name in sorted(lines, key=float)})
    return panels


def _judged(df: pd.DataFrame) -> Verdict | None:
    """The verdict on a table; None for one that cannot be judged and may still be drawn."""
    try:
        return judge(df) if set(df.columns) >= _JUDGED else None
    except ValueError:
        return None


def _mark(ax: Axes, verdict: Verdict, named: Slope, axis: str) -> None:
    """Say above a panel that it is what the verdict names, and its slope."""
    when = f"at step {named.step}" if named.step else "before training"
    goes = f"{named.quantity} goes like {axis}^{named.slope:+.2f}"
    title = f"{wrapped(named.module, _TITLE)} \n{verdict.outcome.upper()}: {goes} \n{when}"
    ax.set_title(title, fontsize=8, color=_MARKED, fontweight="bold")


def _same_span(panels: Sequence[Axes]) -> None:
    """One y axis for all panels but the first, and as many octaves on that, so slopes compare."""
    limits = [ax.get_ylim() for ax in panels]
    low, high = min(y for y, _ in limits[1:]), max(y for _, y in limits[1:])
    half = max(high - low, limits[0][1] - limits[0][0]) / 2
    for ax, middle in zip(
        panels, [sum(limits[0]) / 2] + [(low + high) / 2] * (len(panels) - 1), strict=True
    ):
        ax.set_ylim(middle - half, middle + half)
    for ax in panels[2:]:
        ax.tick_params(labelleft=False)


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
    ax = new_axes(ax)
    steps = df.loc[(df["quantity"] == quantity) & (df["rms"] > 0), "step"]
    _draw(df, module, quantity, ax, scale_colors(steps))
    return ax


def _draw(df: pd.DataFrame, module: str, quantity: str, ax: Axes, colors: dict[float, str]) -> None:
    require(df, "step", "module", "quantity", "rms")
    axis = axis_of(df)
    for name in _ONE:
        if name in df.columns and len(values := df[name].unique().tolist()) > 1:
            raise ValueError(
                f"the table holds {len(values)} values of {name} ({', '.join(map(str, values))}), "
                f"and a line would be their mean: select one, as df[df.{name} == {values[0]!r}]"
            )
    rows = df[(df["module"] == module) & (df["quantity"] == quantity) & (df["rms"] > 0)]
    if rows.empty:
        raise ValueError(
            f"no {quantity!r} above zero for module {module!r}; modules: "
            f"{', '.join(df['module'].unique())}; quantities: {', '.join(df['quantity'].unique())}"
        )
    rows = rows.assign(log2=np.log2(rows["rms"]))
    with theme():
        sns.lineplot(
            rows,
            x=axis,
            y="log2",
            hue="step",
            palette={step: colors[step] for step in rows["step"]},
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
    kept = [m for m in _outputs(df) if m in slopes][-count:] if count > 0 else []
    # Of modules that are as steep the first ones, the same whenever the picture is drawn.
    rest = sorted((m for m in found if m not in kept), key=lambda m: slopes[m], reverse=True)
    chosen = {*kept, *rest[: max(count - len(kept), 0)]}
    return [m for m in found if m in chosen]


def _outputs(df: pd.DataFrame) -> list[str]:
    """The last readout, and the model's own output where it has rows of its own."""
    readouts: list[str] = []
    if "role" in df.columns:
        readouts = list(df.loc[df["role"] == "output", "module"].unique())
    return [*readouts[-1:], *(["(model)"] if (df["module"] == "(model)").any() else [])]
