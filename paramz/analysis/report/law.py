"""The part of the page on the loss over the scale: a law per group, the largest two predicted."""

from __future__ import annotations

from html import escape

import pandas as pd

from paramz.analysis import plots
from paramz.analysis.prediction import Prediction, Question, predict_each
from paramz.analysis.report.section import Section, View, drawing
from paramz.analysis.runs import ALL, group_columns

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
        the part; empty where the runs of no group determine a law.
    """
    try:
        axis = view.axis(df)
        found = _predictions(df, axis, view)
    except (ValueError, KeyError):  # no scale varies, or a column is missing
        return Section()
    if not found:
        return Section()
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
    lines = [("Loss", f"{s}, predicted") for s in sentences if _AHEAD in s]
    return Section(html, sentences, [png], lines=lines)


def _predictions(df: pd.DataFrame, axis: str, view: View) -> list[Prediction]:
    """One per group that has enough scales and did not diverge."""
    by = group_columns(df, view.hp, axis)
    if by:
        df = df[df.groupby(by, dropna=False)[axis].transform("nunique") >= _SCALES]
    elif df[axis].nunique() < _SCALES:
        return []
    twice = (2 * float(df[axis].max()),)
    found, _ = predict_each(df, by, Question(axis, twice, hp=view.hp, loss=view.loss))
    return found
