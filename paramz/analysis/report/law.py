"""The part of the page on the loss over the scale: a law per group, the largest two predicted."""

from __future__ import annotations

from html import escape

import pandas as pd

from paramz.analysis import plots
from paramz.analysis.prediction import Prediction, Question, predict_each
from paramz.analysis.report.section import Section, View, drawing
from paramz.analysis.runs import ALL, group_columns, names_of_groups
from paramz.analysis.statuses import ended

# With fewer scales, the fit without the two largest would have no residuals.
_SCALES = 6
_AHEAD = ": loss "  # in the sentence of a scale that was not run


def law_section(df: pd.DataFrame, view: View) -> Section:
    """Loss against scale at one value of the hyperparameter, the two largest scales predicted.

    The law also says what to expect of a scale twice as large as the largest.

    Args:
        df: the runs.
        view: what to show.

    Returns:
        the part, which names the groups without a law and says why; empty where no scale varies.
    """
    try:
        axis = view.axis(df)
        found, without = _predictions(df, axis, view)
    except (ValueError, KeyError):  # no scale varies, or a column is missing: transfer says so
        return Section()
    told = "".join(f'<p class="faint">{escape(text)}.</p>' for text in without)
    if not found:
        return Section(told, without)
    ax = None
    for index, prediction in enumerate(found):
        ax = plots.law(
            prediction.trial,
            label="runs" if prediction.group == ALL else prediction.group,
            index=index,
            ax=ax,
        )
    assert ax is not None
    sentences = [s for p in found for s in p.sentences(axis, view.hp)]
    png = view.png("law")
    html = f"<h3>Loss against {escape(axis)}</h3>"
    html += drawing(
        ax,
        png,
        f"{view.loss} against {axis} at one {view.hp}, the best of the smallest model; the "
        "law is fitted to the filled marks and predicts the stars, with a 95% band",
    )
    html += "".join(f"<p>{escape(s)}.</p>" for s in sentences)
    lines = [("Loss", f"{s}, predicted") for p in found for s in p.forecasts(axis) if _AHEAD in s]
    return Section(html + told, sentences + without, [png], lines=lines)


def _predictions(df: pd.DataFrame, axis: str, view: View) -> tuple[list[Prediction], list[str]]:
    """One per group that has enough scales and did not diverge; and of the others, the reasons."""
    by = group_columns(df, view.hp, axis)
    ran = ended(df)
    if ran[axis].nunique() < 2:
        return [], []
    twice = (2 * float(ran[axis].max()),)
    enough: list[pd.DataFrame] = []
    few: dict[int, list[str]] = {}
    for _, part in ran.groupby(by, sort=False, dropna=False) if by else [((), ran)]:
        scales = part[axis].nunique()
        if scales < _SCALES:
            few.setdefault(scales, []).append(names_of_groups(part, by)[0] if by else "")
        else:
            enough.append(part)
    without = [_too_few(names, have, axis) for have, names in few.items()]
    if not enough:
        return [], without
    found, refused = predict_each(
        pd.concat(enough), by, Question(axis, twice, hp=view.hp, loss=view.loss)
    )
    return found, without + [f"No law of the loss: {reason}" for reason in refused]


def _too_few(names: list[str], have: int, axis: str) -> str:
    of = f" of {'; '.join(names)}" if any(names) else ""
    return (
        f"No law of the loss{of}: here it takes {_SCALES} values of {axis}, of which it is tested "
        f"on the largest two, and there {'is' if have == 1 else 'are'} {have} (paramz fit takes "
        "4, untested)"
    )
