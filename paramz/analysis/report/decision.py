"""What comes first on the page: the value to use, the loss to expect, what it took."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from paramz.analysis.outcome import Outcome
from paramz.analysis.report.section import COLORED
from paramz.analysis.transfer import Transfer

DECISION = "decision.json"  # what `paramz tune` leaves beside its steps
_ORDER = ("Use", "Loss", "Cost", "Coordinates", "Others", "Doubts")
_RANK: dict[Outcome, int] = {"pass": 0, "undecided": 1, "fail": 2}
_OUTCOMES: dict[str, Outcome] = {"ready": "pass", "careful": "undecided", "stopped": "fail"}

Line = tuple[str, str]
"""What a line is about, one of `_ORDER`, and its text."""


def box(lines: Iterable[Line], outcome: Outcome) -> str:
    """The lines in a box, those about the same thing together; empty without lines.

    >>> box([("Cost", "1 hour"), ("Use", "lr < 1")], "pass").index("lr &lt; 1") < 150
    True
    """
    given = list(lines)
    rows = [
        f'<dt>{title}</dt><dd class="{title.lower()}">{escape(text)}</dd>'
        for title in _ORDER
        for about, text in given
        if about == title
    ]
    if not rows:
        return ""
    return f'<div class="decision {COLORED[outcome]}"><dl>{"".join(rows)}</dl></div>'


def recommended(found: Transfer) -> str | None:
    """The group to use: one that transfers rather than one that does not, then the lowest loss."""
    best = found.comparison()
    if best.empty:
        return None
    at_largest = best.iloc[-1]
    answered = [g for g in found.groups if found.verdicts[g].answer is not None]
    return min(
        answered,
        key=lambda g: (_RANK[found.verdicts[g].outcome], at_largest.fillna(float("inf"))[g]),
        default=None,
    )


def transfer_lines(found: Transfer, words: dict[Outcome, str]) -> list[Line]:
    """What a sweep says to do: the value of the recommended group, and why not another."""
    group = recommended(found)
    if group is None:
        return []
    verdict, best = found.verdicts[group], found.comparison()
    assert verdict.answer is not None
    several = len(found.groups) > 1  # a single group is called "all", which tells nothing
    named = f" under {group}" if several else ""
    lines = [("Use", f"{verdict.answer.what}{named}")]
    measured = best[group].dropna()
    loss, where = measured.iloc[-1], f"at {found.scale} {measured.index[-1]:g}"
    lines.append(("Loss", f"{loss:.4g} {where}{named}, measured"))
    for other in found.groups:
        if other != group:
            own = best[other].get(measured.index[-1], float("nan"))
            at_best = f"; {found.loss} {own:.4g} {where} at its own best" if own == own else ""
            said = words[found.verdicts[other].outcome].lower()
            lines.append(("Others", f"{other}: {said}{at_best}"))
    return lines


def tuned(root: Path) -> str:
    """The box of a decision that `paramz tune` made in a folder or in the one that holds it.

    Empty where there is none.
    """
    for folder in (root, root.resolve().parent):
        try:
            found = json.loads((folder / DECISION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and "hp" in found and "target" in found:
            return box(_tuned_lines(found), _OUTCOMES.get(str(found.get("outcome")), "undecided"))
    return ""


def _tuned_lines(found: dict[str, Any]) -> list[Line]:
    target, hp = str(found["target"]).replace(",", ", "), found["hp"]
    if found.get("value") is None:
        lines = [("Use", f"no value can be given for {target}")]
    else:
        ends = [found.get(end) for end in ("lo", "hi")]
        interval = f" ({ends[0]:.3g} to {ends[1]:.3g})" if None not in ends else ""
        lines = [("Use", f"{hp} = {found['value']:.4g}{interval} for {target}")]
    forecast = found.get("forecast") or {}
    if forecast.get("mean") is not None:
        lo, hi = forecast.get("lo"), forecast.get("hi")
        interval = f" (95% {lo:.4g} to {hi:.4g})" if lo is not None and hi is not None else ""
        lines.append(("Loss", f"{forecast['mean']:.4g}{interval}, predicted for {target}"))
    cost = found.get("cost") or {}
    if cost:
        lines.append(
            ("Cost", f"{cost.get('tuning')} for tuning, {cost.get('target')} for the target")
        )
    return lines + [("Doubts", str(doubt)) for doubt in found.get("doubts") or ()]
