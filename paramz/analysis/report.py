"""`paramz report`: what a sweep says, on one page.

A folder is a run (it holds results/ or coord/) or a folder of runs, which share a page. Each
part of the page is made from what there is: transfer where a hyperparameter was swept over two or
more scales, the coordinate check where one was written.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from paramz.analysis import plots
from paramz.analysis.coordinates import axis_of
from paramz.analysis.page import figure, page, table
from paramz.analysis.plots.style import new_row
from paramz.analysis.prediction import Prediction, predict_loss
from paramz.analysis.runs import baseline_first, choose_scale, group_columns
from paramz.analysis.transfer import Transfer, transfer


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        path: The HTML page.
        verdicts: Its sentences, `run: sentence` where there are several runs.
        figures: The PNG files beside it.
    """

    path: Path
    verdicts: list[str]
    figures: list[Path]


@dataclass(frozen=True)
class _Section:
    html: str
    verdicts: list[str]
    figures: list[Path]


def write_report(
    folder: str | Path, *, hp: str = "lr", loss: str = "loss", scale: str | None = None
) -> Report:
    """Write `report.html` into a run's folder, or into a folder of several runs.

    Args:
        folder: The run, or the folder that holds runs.
        hp: The hyperparameter whose transfer is judged.
        loss: The metric that is minimized.
        scale: The scale; by default width, or depth where width does not vary.

    Returns:
        Where it was written and what it says.

    Raises:
        FileNotFoundError: There is no such folder, or no run in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    runs = find_runs(root)
    if not runs:
        raise FileNotFoundError(
            f"{root} holds no run: a run is a folder with results/ (written by `paramz sweep`) or "
            "coord/ (written by `paramz check`)"
        )
    sections = [_run(run, root, hp, loss, scale) for run in runs]
    title = f"{root.resolve().name}: transfer report"
    body = f"<h1>{escape(title)}</h1>" + "".join(s.html for s in sections)
    path = root / "report.html"
    path.write_text(page(title, body), encoding="utf-8")
    named = zip(runs, sections, strict=True)
    return Report(
        path,
        [v if len(runs) == 1 else f"{r.name}: {v}" for r, s in named for v in s.verdicts],
        [f for s in sections for f in s.figures],
    )


def find_runs(root: Path) -> list[Path]:
    """The runs in a folder: itself, or else those of its folders that are one."""

    def is_run(path: Path) -> bool:
        return (path / "results").is_dir() or (path / "coord").is_dir()

    return [root] if is_run(root) else sorted(p for p in root.iterdir() if is_run(p))


def _run(run: Path, root: Path, hp: str, loss: str, scale: str | None) -> _Section:
    """A run's part of the page; PNGs are named after the run where there are several."""
    prefix = "" if run == root else f"{run.name}-"
    parts = []
    if (run / "results").is_dir():
        parts.append(_sweep(run, root, prefix, hp, loss, scale))
    if (run / "coord").is_dir():
        parts.append(_coord(run / "coord", root, prefix))
    return _Section(
        f"<section><h2>{escape(run.resolve().name)}</h2>{''.join(p.html for p in parts)}</section>",
        [v for p in parts for v in p.verdicts],
        [f for p in parts for f in p.figures],
    )


def _sweep(run: Path, root: Path, prefix: str, hp: str, loss: str, scale: str | None) -> _Section:
    from paramz.sweeps import load

    df = baseline_first(load(run))
    law = _law(df, root, prefix, hp, loss, scale)
    parts = [_transfer(df, root, prefix, hp, loss, scale), law]
    if law.figures and hp in df.columns and df[hp].nunique() == 1:
        parts = [law]  # a sweep of the scale alone has no transfer to judge
    return _Section(
        _counts(df) + "".join(p.html for p in parts) + _failures(df),
        [v for p in parts for v in p.verdicts],
        [f for p in parts for f in p.figures],
    )


def _transfer(
    df: pd.DataFrame, root: Path, prefix: str, hp: str, loss: str, scale: str | None
) -> _Section:
    try:
        axis = scale or choose_scale(df)
        by = group_columns(df, hp, axis)
        whole, html = _whole_curves(df, hp, axis, by)
        found = transfer(whole, hp=hp, loss=loss, scale=axis, by=by)
    except (ValueError, KeyError) as error:
        reason = f"Transfer was not judged: {error.args[0]}"
        return _Section(f"<p>{escape(reason)}.</p>", [reason], [])
    figures = [root / f"{prefix}{name}.png" for name in ("transfer", "optimum", "regret")]
    for verdict in found.verdicts.values():
        html += _judgement(*_WORDS[verdict.transfers], verdict.sentence)
    html += _draw(
        plots.transfer(found)[0],
        figures[0],
        f"{loss} against log₂ {hp}, a line per {axis}; rings mark each optimum, crosses runs "
        "that diverged",
    )
    html += _draw(
        plots.optima(found),
        figures[1],
        f"The best {hp} against {axis}, with 95% intervals",
    )
    scales = found.optima["scale"].nunique()
    axes = new_row(len(found.groups), width=1.6 + 0.62 * scales, share=False)
    for group, ax in zip(found.groups, axes, strict=True):
        plots.regret(found, group, ax)
    html += _draw(
        axes[0],
        figures[2],
        f"What reusing the best {hp} of one {axis} (down) costs at another (across), in {loss}",
    )
    return _Section(html + _tables(found), [str(v) for v in found.verdicts.values()], figures)


def _whole_curves(df: pd.DataFrame, hp: str, scale: str, by: list[str]) -> tuple[pd.DataFrame, str]:
    """The runs of curves with an optimum to find, and a note on those of an unfinished sweep."""
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


# Fewer scales than this leave the held-out trial no residuals.
_SCALES = 6


def _law(
    df: pd.DataFrame, root: Path, prefix: str, hp: str, loss: str, scale: str | None
) -> _Section:
    """Loss against scale at one value of the hyperparameter, the two largest predicted."""
    found: list[Prediction] = []
    with suppress(ValueError, KeyError):  # no scale, or a group that diverged: there is no law
        axis = scale or choose_scale(df)
        by = group_columns(df, hp, axis)
        for _, part in df.groupby(by, sort=False) if by else [("", df)]:
            if part[axis].nunique() >= _SCALES:
                with suppress(ValueError):
                    found += predict_loss(part, scale=axis, hp=hp, loss=loss, by=by)
    if not found:
        return _Section("", [], [])
    ax = None
    for index, prediction in enumerate(found):
        ax = plots.law(prediction.trial, label=prediction.group, index=index, ax=ax)
    assert ax is not None
    sentences = [s for p in found for s in p.sentences(axis, hp)]
    png = root / f"{prefix}law.png"
    html = f"<h3>Loss against {escape(axis)}</h3>"
    html += _draw(
        ax,
        png,
        f"{loss} against {axis} at one {hp}, the best of the smallest model; the law is fitted to "
        "the filled marks and predicts the stars, with a 95% band",
    )
    html += "".join(f"<p>{escape(s)}.</p>" for s in sentences)
    return _Section(html, sentences, [png])


def _counts(df: pd.DataFrame) -> str:
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
    listed = table(failed[["key", "error"]])
    return f"<h3>Trials that raised</h3><p>They are left out of everything above.</p>{listed}"


_WORDS = {True: ("good", "Transfers"), False: ("bad", "Does not transfer"), None: ("open", "Open")}


def _judgement(kind: str, word: str, sentence: str) -> str:
    return f'<p class="verdict {kind}"><b>{word}.</b>{escape(sentence)}</p>'


def _draw(ax: Axes, png: Path, caption: str) -> str:
    fig = ax.get_figure(root=True)
    assert fig is not None
    html = figure(fig, png, caption)
    plt.close(fig)
    return html


def _tables(found: Transfer) -> str:
    optima = found.optima.rename(columns={"scale": found.scale}).drop(columns=["curvature"])
    regret = found.regret.rename(columns={"share": "share of gain"})
    positions = dict.fromkeys(("log2_opt", "lo", "hi"), ".2f")
    best = found.comparison()
    best = best.rename_axis(found.scale).reset_index()
    return (
        "<h3>Drift of the optimum, octaves per doubling</h3>"
        + table(found.drift, dict.fromkeys(("slope", "lo", "hi"), "+.3f"))
        + "<h3>The optimum at each scale</h3>"
        + table(optima, positions)
        + f"<h3>The lowest {escape(found.loss)}, each at its own best</h3>"
        + table(best)
        + "<details><summary>Regret: tuned at one scale, evaluated at another</summary>"
        + table(regret, {"share of gain": ".1%"})
        + "</details>"
    )


def _coord(folder: Path, root: Path, prefix: str) -> _Section:
    """Panels of each coordinate check, the same modules in each so that they compare."""
    checks = {p.stem: pd.read_csv(p) for p in sorted(folder.glob("*.csv"))}
    if not checks:
        return _Section("", [], [])
    by_axis: dict[str, list[pd.DataFrame]] = {}
    for df in checks.values():
        by_axis.setdefault(axis_of(df), []).append(df)
    modules = {axis: plots.steepest(pd.concat(tables)) for axis, tables in by_axis.items()}
    html, verdicts, figures = "<h3>Coordinate check</h3>", [], []
    for label, df in checks.items():
        summary = _summary(folder / f"{label}.json")
        if sentence := summary.get("sentence"):
            verdicts.append(str(sentence))
            passed = bool(summary.get("passed"))
            kind, word = ("good", "Pass") if passed else ("bad", "Fail")
            html += _judgement(kind, word, re.sub(r"^(PASS|FAIL): ", "", str(sentence)))
        axis = axis_of(df)
        shown = [m for m in modules[axis] if m in set(df["module"])]
        png = root / f"{prefix}coord-{label}.png"
        caption = (
            f"{label}: change of each module's output since step 0 against {axis}, a line per "
            "step; flat is right. The modules whose size varies most are shown"
        )
        html += _draw(plots.coord_check(df, modules=shown)[0], png, caption)
        figures.append(png)
        if slopes := summary.get("slopes"):
            listed = table(pd.DataFrame(slopes), dict.fromkeys(("slope", "lo", "hi"), "+.3f"))
            html += (
                f"<details><summary>Slopes of {escape(label)}: log size against log {axis}"
                f"</summary>{listed}</details>"
            )
    return _Section(html, verdicts, figures)


def _summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read
