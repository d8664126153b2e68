"""The part of the page on a sweep: transfer, the law over the scale, and trials that failed."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import pandas as pd

from paramz.analysis import plots
from paramz.analysis.outcome import Outcome
from paramz.analysis.report.decision import recommended, transfer_lines
from paramz.analysis.report.law import law_section
from paramz.analysis.report.meanings import (
    DRIFT,
    OPTIMA,
    QUALITY,
    REGRET,
    SENSITIVITY,
    explained,
)
from paramz.analysis.report.page import html_table
from paramz.analysis.report.section import Section, View, drawing, judgement, stacked
from paramz.analysis.report.settings import settings_section
from paramz.analysis.runs import ALL, baseline_first, group_columns
from paramz.analysis.transfer import Transfer, transfer

_WORDS: dict[Outcome, str] = {
    "pass": "Transfers",
    "fail": "Does not transfer",
    "undecided": "Undecided",
}


def sweep_section(
    df: pd.DataFrame, view: View, *, run: Path | None = None, left_out: int = 0
) -> Section:
    """What the results of a sweep say.

    Args:
        df: one row per finished trial, as from `paramz.sweeps.load`.
        view: what to show.
        run: the folder of the sweep; None where the runs are a table's.
        left_out: the number of results that the sweep no longer asks for.

    Returns:
        counts of trials, transfer, the law over the scale, and the trials that failed.
    """
    df = baseline_first(df)
    law = law_section(df, view)
    # A sweep over the scale alone has a law, but no transfer to judge.
    only_law = law.figures and view.hp in df.columns and df[view.hp].nunique() == 1
    parts = [law] if only_law else [_transfer_section(df, view), law]
    return stacked(
        [
            Section(
                _trial_counts(df) + _left_out(left_out),
                lines=[("Cost", f"{_hours(df) or 'no times'} in {len(df)} trials")],
            ),
            settings_section(run, df) if run else Section(),
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
        found = transfer(df, hp=hp, loss=loss, scale=axis, by=by)
    except (ValueError, KeyError) as error:
        reason = f"Transfer was not judged: {error.args[0]}"
        return Section(f"<p>{escape(reason)}.</p>", [reason])
    figures = [view.png(name) for name in ("transfer", "optimum", "regret")]
    html = ""
    for group, verdict in found.verdicts.items():
        word = "Not judged" if group in found.not_judged else _WORDS[verdict.outcome]
        html += judgement(verdict.outcome, word, verdict.sentence)
        if verdict.answer is not None:
            html += f'<p class="answer"><b>{escape(verdict.answer.sentence)}</b></p>'
    html += "".join(f'<p class="faint">{escape(note)}.</p>' for note in found.notes)
    html += drawing(
        plots.transfer(found)[0],
        figures[0],
        f"{loss} against log₂ {hp}, a line per {axis}; rings mark each optimum, crosses runs "
        "that diverged, triangles losses above the axis",
    )
    html += drawing(
        plots.optima(found),
        figures[1],
        f"The best {hp} against {axis}, with 95% intervals",
    )
    axes = plots.regrets(found)
    if axes:
        html += drawing(
            axes[0],
            figures[2],
            f"What reusing the best {hp} of one {axis} (down) costs at another (across), in {loss}",
        )
    else:
        html += (
            f"<p>Reusing the best {escape(hp)} of one {escape(axis)} at another costs nothing.</p>"
        )
        figures = figures[:2]
    verdicts = [verdict.text for verdict in found.verdicts.values()]
    answers = [
        {"group": group, "outcome": verdict.outcome}
        | (verdict.answer.to_json() if verdict.answer else {})
        | {"to_decide": list(verdict.to_decide)}
        for group, verdict in found.verdicts.items()
    ]
    chosen = recommended(found)
    outcome = None if chosen is None else found.verdicts[chosen].outcome
    lines = transfer_lines(found, _WORDS)
    return Section(html + _tables(found), verdicts, figures, answers, lines, outcome)


def _tables(found: Transfer) -> str:
    optima = found.optima.rename(columns={"scale": found.scale}).drop(columns=["curvature"])
    regret = found.regret.rename(columns={"share": "share of gain"})
    positions = dict.fromkeys(("log2_opt", "lo", "hi"), ".2f")
    best = found.comparison()
    best = best.rename(columns={ALL: found.loss}).rename_axis(found.scale).reset_index()
    return (
        "<h3>Drift of the optimum, octaves per doubling</h3>"
        + explained(DRIFT, found.hp)
        + _table(found.drift, dict.fromkeys(("slope", "lo", "hi"), "+.3f"))
        + "<h3>The optimum at each scale</h3>"
        + explained(OPTIMA, found.hp)
        + _table(optima, positions)
        + f"<h3>The lowest {escape(found.loss)}, each at its own best</h3>"
        + html_table(best)
        + "<details><summary>Regret: tuned at one scale, evaluated at another</summary>"
        + explained(REGRET, found.hp)
        + _table(regret, {"share of gain": ".1%"})
        + f"</details><details><summary>Sensitivity to {escape(found.hp)}, and how well a power "
        + "law holds its best values</summary>"
        + explained(SENSITIVITY, found.hp)
        + _table(found.sensitivity.rename(columns={"scale": found.scale}))
        + explained(QUALITY, found.hp)
        + _table(found.quality)
        + "</details>"
    )


def _table(df: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """A table, without the column of groups where there is only one, which has no name."""
    single = "group" in df.columns and (df["group"] == ALL).all()
    return html_table(df.drop(columns="group") if single else df, formats)


def _trial_counts(df: pd.DataFrame) -> str:
    counts = df["status"].value_counts()
    known = [s for s in ("ok", "diverged", "failed") if s in counts]
    parts = [f"{counts[s]} {s}" for s in [*known, *(s for s in counts.index if s not in known)]]
    told = [f"{len(df)} finished trials ({', '.join(parts)})", _hours(df)]
    return f'<p class="faint">{", ".join(filter(None, told))}.</p>'


def _hours(df: pd.DataFrame) -> str:
    """The cost in words; empty where a table came without times."""
    hours = df["seconds"].sum() / 3600
    return f"{hours:.2g} hours of training" if hours > 0 else ""


def _failures(df: pd.DataFrame) -> str:
    failed = df[df["status"] == "failed"]
    if failed.empty:
        return ""
    return (
        "<h3>Trials that ended in an error</h3><p>They are left out of everything above.</p>"
        + html_table(failed[["key", "error"]])
    )
