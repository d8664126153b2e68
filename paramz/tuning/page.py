"""The decision as a page for people: the answer first, then what it rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from paramz.tuning.decision import Decision
from paramz.tuning.model import Values

_TITLES = {
    "ready": "Ready",
    "careful": "With care: see the doubts",
    "stopped": "Stopped: no value can be given",
}


def save(decision: Decision, folder: Path) -> Path:
    """Write ``decision.json`` and ``decision.md``; returns the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(decision.to_json(), indent=2, ensure_ascii=False)
    (folder / "decision.json").write_text(text + "\n", encoding="utf-8")
    path = folder / "decision.md"
    path.write_text(page(decision), encoding="utf-8")
    return path


def page(decision: Decision) -> str:
    """The decision in Markdown."""
    return "\n".join(_lines(decision)) + "\n"


def answer(decision: Decision) -> list[str]:
    """The decision in a few lines of plain text: the value, the loss, the cost, the doubts."""
    lines = [f"{_TITLES[decision.outcome]}. {_value(decision)}".strip()]
    if (loss := _loss(decision)) and decision.outcome != "stopped":
        lines.append(loss)
    lines += [f"doubt: {doubt}" for doubt in decision.doubts]
    return lines


def _lines(decision: Decision) -> Iterator[str]:
    yield f"# {decision.target.replace(',', ', ')}"
    yield ""
    yield f"**{_TITLES[decision.outcome]}.** {_value(decision)}".strip()
    if decision.outcome != "stopped":
        yield ""
        yield _loss(decision)
    if decision.cost is not None:
        yield ""
        yield _cost(decision)
    yield from _listed("Doubts", decision.doubts)
    yield from _listed("What would make it surer", decision.surer)
    if decision.groups:
        yield from ("", f"## The target's values at {decision.hp} = {decision.value:.4g}", "")
        yield from _table(decision.groups)
        if decision.factors:
            yield from ("", *(f"- {factor}" for factor in decision.factors))
    yield from ("", "## What this rests on", "")
    if decision.coordinates is not None:
        yield f"- Coordinates: {decision.coordinates.text}"
    if decision.transfer is not None:
        yield f"- Transfer: {decision.transfer.text}"
    if decision.moved.rule:
        changed = {n: r for n, r in decision.moved.ratios.items() if r != 1}
        ratios = " and ".join(f"{r:.4g} times the {n}" for n, r in changed.items())
        values = ", ".join(f"{n} = {_number(v)}" for n, v in decision.moved.values.items())
        yield (
            f"- Moved to {ratios} by the rule {decision.moved.rule}: {values}. The interval is "
            "that of the proxies' optimum, without an error of the rule. "
            f"{_sentence(decision.moved.measured)}"
        )
    if decision.forecast is not None and decision.forecast.law:
        errors = ", ".join(f"{error:+.2%}" for error in decision.forecast.held_out) or "none"
        yield (
            f"- Loss: {decision.forecast.law}. Held out and predicted from the smaller runs, with "
            f"errors of: {errors}"
        )
        yield from (f"- Careful: {caution}" for caution in decision.forecast.cautions)
    yield from _listed("Proxies", decision.proxies)
    if decision.commands:
        yield from ("", "## Next", "", "```bash")
        for command, what in decision.commands.items():
            yield f"{command}  # {what}"
        yield "```"


def _value(decision: Decision) -> str:
    if decision.value is None:
        return ""
    assert decision.lo is not None and decision.hi is not None
    at = "; this is the value at the base, the table has that of every tensor"
    low = f"{decision.lo:.3g}" if decision.lo > 0 else "open"
    high = f"{decision.hi:.3g}" if decision.hi < float("inf") else "open"
    return (
        f"Train {decision.target.replace(',', ', ')} with {decision.hp} = {decision.value:.4g} "
        f"(95% {low} to {high}){at if decision.groups else ''}."
    )


def _loss(decision: Decision) -> str:
    found = decision.forecast
    if found is None or found.mean is None:
        return "Its loss is not predicted: " + (found.missing if found else "no runs") + "."
    error = max(map(abs, found.held_out), default=None)
    test = "" if error is None else f"; the largest held-out error is {error:.2%}"
    return f"Its loss will be {found.mean:.4g} (95% {found.lo:.4g} to {found.hi:.4g}{test})."


def _cost(decision: Decision) -> str:
    cost = decision.cost
    assert cost is not None
    size = "" if cost.parameters is None else f", {cost.parameters:,} parameters"
    tokens = "" if cost.tokens is None else f", {cost.tokens:.3g} tokens"
    return (
        f"Tuning took {cost.tuning} of {cost.budget}; a run of the target takes about "
        f"{cost.target} here{size}{tokens}."
    )


def _listed(title: str, items: tuple[str, ...]) -> Iterator[str]:
    if items:
        yield from ("", f"## {title}", "", *(f"- {item}" for item in items))


def _table(groups: tuple[Values, ...]) -> Iterator[str]:
    names = list(dict.fromkeys(name for group in groups for name in group.settings))
    head = ["role", "tensors", "init std", *names]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for group in groups:
        first = f"`{group.tensors[0]}`"
        rest = len(group.tensors) - 1
        cells = [
            ", ".join(group.roles),
            f"{first} and {rest} more" if rest else first,
            f"{group.init:.4g} x base",
            *(f"{group.settings[n]:.4g}" if n in group.settings else "" for n in names),
        ]
        yield f"| {' | '.join(cells)} |"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
