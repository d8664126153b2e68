"""The part of the page on a sweep: transfer, the law over the scale, and trials that failed."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pandas as pd

from paramz.analysis import plots
from paramz.analysis.outcome import Outcome
from paramz.analysis.plots.style import new_row
from paramz.analysis.report.law import law_section
from paramz.analysis.report.page import html_table
from paramz.analysis.report.section import Section, View, drawing, judgement, stacked
from paramz.analysis.runs import baseline_first, group_columns
from paramz.analysis.transfer import Transfer, transfer
from paramz.sweeps import load

_WORDS: dict[Outcome, str] = {
    "pass": "Transfers",
    "fail": "Does not transfer",
    "undecided": "Undecided",
}


def sweep_section(run: Path, view: View) -> Section:
    """What the results of a sweep say.

    Args:
        run: the folder of the sweep.
        view: what to show.

    Returns:
        counts of trials, transfer, the law over the scale, and the trials that failed.
    """
    every = load(run, unasked=True)
    df = baseline_first(every[every["asked"]].drop(columns="asked"))
    law = law_section(df, view)
    # A sweep over the scale alone has a law, but no transfer to judge.
    only_law = law.figures and view.hp in df.columns and df[view.hp].nunique() == 1
    parts = [law] if only_law else [_transfer_section(df, view), law]
    return stacked(
        [
            Section(_trial_counts(df) + _left_out(len(every) - len(df))),
            *parts,
            Section(_failures(df)),
        ]
    )


def _left_out(number: int) -> str:
    if not number:
        return ""
    are = "result is" if number == 1 else "results are"
    return (
        f'<p class="faint">{number} {are} of values that the sweep no longer asks for, and left '
        "out.</p>"
    )


def _transfer_section(df: pd.DataFrame, view: View) -> Section:
    hp, loss = view.hp, view.loss
    try:
        axis = view.axis(df)
        by = group_columns(df, hp, axis)
        whole, html = _whole_curves(df, hp, axis, by)
        found = transfer(whole, hp=hp, loss=loss, scale=axis, by=by)
    except (ValueError, KeyError) as error:
        reason = f"Transfer was not judged: {error.args[0]}"
        return Section(f"<p>{escape(reason)}.</p>", [reason])
    figures = [view.png(name) for name in ("transfer", "optimum", "regret")]
    for verdict in found.verdicts.values():
        html += judgement(verdict.outcome, _WORDS[verdict.outcome], verdict.sentence)
    html += drawing(
        plots.transfer(found)[0],
        figures[0],
        f"{loss} against log₂ {hp}, a line per {axis}; rings mark each optimum, crosses runs "
        "that diverged",
    )
    html += drawing(
        plots.optima(found),
        figures[1],
        f"The best {hp} against {axis}, with 95% intervals",
    )
    scales = found.optima["scale"].nunique()
    axes = new_row(len(found.groups), width=1.6 + 0.62 * scales, share=False)
    for group, ax in zip(found.groups, axes, strict=True):
        plots.regret(found, group, ax)
    html += drawing(
        axes[0],
        figures[2],
        f"What reusing the best {hp} of one {axis} (down) costs at another (across), in {loss}",
    )
    verdicts = [verdict.sentence for verdict in found.verdicts.values()]
    return Section(html + _tables(found), verdicts, figures)


def _whole_curves(df: pd.DataFrame, hp: str, scale: str, by: list[str]) -> tuple[pd.DataFrame, str]:
    """The runs of curves with three points or more, and a note on the others.

    An unfinished sweep has curves that are too short to have an optimum. If all are, none is left
    out, and the error says why.
    """
    points = df[df["status"] != "failed"].groupby([*by, scale], dropna=False)[hp].nunique()
    short = points[points < 3]
    if short.empty or len(short) == len(points):
        return df, ""
    keys = pd.MultiIndex.from_frame(df[[*by, scale]]) if by else pd.Index(df[scale])
    names = "; ".join(
        " · ".join(map(str, key if isinstance(key, tuple) else (key,))) for key in short.index
    )
    note = f"Left out, with fewer than three values of {hp} so far: {names}."
    return df[~keys.isin(short.index)], f"<p>{escape(note)}</p>"


def _tables(found: Transfer) -> str:
    optima = found.optima.rename(columns={"scale": found.scale}).drop(columns=["curvature"])
    regret = found.regret.rename(columns={"share": "share of gain"})
    positions = dict.fromkeys(("log2_opt", "lo", "hi"), ".2f")
    best = found.comparison()
    best = best.rename_axis(found.scale).reset_index()
    return (
        "<h3>Drift of the optimum, octaves per doubling</h3>"
        + html_table(found.drift, dict.fromkeys(("slope", "lo", "hi"), "+.3f"))
        + "<h3>The optimum at each scale</h3>"
        + html_table(optima, positions)
        + f"<h3>The lowest {escape(found.loss)}, each at its own best</h3>"
        + html_table(best)
        + "<details><summary>Regret: tuned at one scale, evaluated at another</summary>"
        + html_table(regret, {"share of gain": ".1%"})
        + "</details>"
    )


def _trial_counts(df: pd.DataFrame) -> str:
    counts = df["status"].value_counts()
    parts = [f"{counts.get(s, 0)} {s}" for s in ("ok", "diverged", "failed") if counts.get(s, 0)]
    hours = df["seconds"].sum() / 3600
    return (
        f'<p class="faint">{len(df)} finished trials ({", ".join(parts)}), '
        f"{hours:.2g} hours of training.</p>"
    )


def _failures(df: pd.DataFrame) -> str:
    failed = df[df["status"] == "failed"]
    if failed.empty:
        return ""
    return (
        "<h3>Trials that ended in an error</h3><p>They are left out of everything above.</p>"
        + html_table(failed[["key", "error"]])
    )
