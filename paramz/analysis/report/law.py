"""The part of the page on the loss over the scale: a law per group, the largest two predicted."""

from __future__ import annotations

from contextlib import suppress
from html import escape

import pandas as pd

from paramz.analysis import plots
from paramz.analysis.prediction import Prediction, predict_loss
from paramz.analysis.report.section import Request, Section, drawing
from paramz.analysis.runs import group_columns

# With fewer scales, the fit without the two largest would have no residuals.
_SCALES = 6


def law_section(df: pd.DataFrame, request: Request) -> Section:
    """Loss against scale at one value of the hyperparameter, the two largest scales predicted.

    Args:
        df: the runs.
        request: what to show.

    Returns:
        the part; empty where the runs of no group determine a law.
    """
    try:
        axis = request.axis(df)
        found = _predictions(df, axis, request)
    except (ValueError, KeyError):  # no scale varies, or a column is missing
        return Section()
    if not found:
        return Section()
    ax = None
    for index, prediction in enumerate(found):
        ax = plots.law(prediction.trial, label=prediction.group, index=index, ax=ax)
    assert ax is not None
    sentences = [s for p in found for s in p.sentences(axis, request.hp)]
    png = request.png("law")
    html = f"<h3>Loss against {escape(axis)}</h3>"
    html += drawing(
        ax,
        png,
        f"{request.loss} against {axis} at one {request.hp}, the best of the smallest model; the "
        "law is fitted to the filled marks and predicts the stars, with a 95% band",
    )
    html += "".join(f"<p>{escape(s)}.</p>" for s in sentences)
    return Section(html, sentences, [png])


def _predictions(df: pd.DataFrame, axis: str, request: Request) -> list[Prediction]:
    """One per group that has enough scales and did not diverge."""
    hp, by = request.hp, group_columns(df, request.hp, axis)
    found: list[Prediction] = []
    for _, part in df.groupby(by, sort=False) if by else [("", df)]:
        if part[axis].nunique() >= _SCALES:
            with suppress(ValueError):
                found += predict_loss(part, scale=axis, hp=hp, loss=request.loss, by=by)
    return found
