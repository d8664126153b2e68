"""The plan as a table for people: rich in a terminal, HTML in a notebook."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from paramz.plan.groups import decay_ratio, lr_ratio
from paramz.theory.families import family as find_family
from paramz.theory.rules import ONE, Family, Power

if TYPE_CHECKING:
    from paramz.plan.plan import Plan
    from paramz.plan.roles import Row

_COLUMNS = ("tensor", "shape", "role", "why", "init std", "multiplier", "lr")
_STD = _COLUMNS.index("init std")


@dataclass(frozen=True)
class Summary:
    """A table of text: ``print`` it, or let a notebook render it."""

    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=None, header_style="bold")
        for column in self.columns:
            table.add_column(column, no_wrap=True)
        for row in self.cells:
            table.add_row(*row)
        text = StringIO()
        console = Console(file=text, width=240, color_system=None)
        console.print(table)
        for note in self.notes:
            console.print(note)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
            for row in self.cells
        )
        notes = "".join(f"<p>{html.escape(n)}</p>" for n in self.notes)
        return (
            f"<p><b>{html.escape(self.title)}</b></p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{notes}"
        )


def summarize(
    plan: Plan, optimizer: Any, *, exponent: float | tuple[float, float] | None, full: bool
) -> Summary:
    """See `Plan.summary`."""
    family = find_family(optimizer, exponent=exponent)
    lines = [_cells(plan, row, family) for row in plan.rows]
    if not full:
        lines = _collapse(_pool_std(lines))
    notes = [
        f"{s.module}: {_scaled(s.attribute)}{s.attribute} {s.plain:.4g} -> {s.value:.4g}"
        for s in plan.attention
    ]
    notes += [f"{path}: input times {c:.4g}" for path, c in plan.multipliers.items()]
    notes += [f"{path}: output times {c:.4g}" for path, c in plan.branches.items()]
    title = (
        f"{plan.parametrization.name} · {family.name} · {len(plan.rows)} tensors. Each entry: the "
        "rule, and the number that multiplies the base value (std: the value itself)"
    )
    if family.damping is not None:
        notes.append(
            "dampings are of constants; damping relative to a factor's trace needs no rule"
        )
    constants = ("eps",) if family.damping is None else ("damping A", "damping B")
    columns = (*_COLUMNS, *constants, "decay")
    return Summary(title, columns, tuple(lines), (*_collapse_notes(notes), *plan.notes))


def _scaled(attribute: str) -> str:
    return "" if attribute == "embed_scale" else "attention logits, "


def _cells(plan: Plan, row: Row, family: Family) -> tuple[str, ...]:
    weight = plan.weight_rule(row)
    head = (
        row.name + "".join(f" = {alias}" for alias in row.aliases),
        "x".join(map(str, row.shape)) or "()",
        row.role,
        row.why,
        _init(plan, row, weight.init_std),
        _entry(row, weight.multiplier, weight.multiplier(row.ratios)),
    )
    try:
        rule = plan.rule(row, family)
    except KeyError:
        return (*head, "no rule", "", *([""] if family.damping is None else ["", ""]))
    powers = [] if family.eps is None else [rule.eps]
    if family.damping is not None:
        powers = [rule.damping_a, rule.damping_b]
    decay = rule.weight_decay * (rule.eps if family.decay == "l2-normalised" else ONE)
    return (
        *head,
        _entry(row, rule.lr, lr_ratio(plan, row, family)),
        *([_entry(row, power, power(row.ratios)) for power in powers] or [""]),
        _entry(row, decay, decay_ratio(plan, row, family)),
    )


def _init(plan: Plan, row: Row, power: Power) -> str:
    if row.base_init is None:
        return _entry(row, power, power(row.ratios))
    if row.base_init.kind == "constant":
        return f"all {row.base_init.value * plan.branch_factor(row):g}"
    # Two digits: the base is a sample, and equal blocks should look equal.
    return _text(row, power, f"{plan.init_std(row):.2g}")


def _entry(row: Row, power: Power, value: float) -> str:
    return _text(row, power, f"{value:.4g}")


def _text(row: Row, power: Power, value: str) -> str:
    """The power, without scales that the tensor does not have, and the number."""
    own = Power(**{scale: e for scale, e in power.exponents if scale in row.ratios})
    return value if own == ONE else f"{own} = {value}"


def _pool_std(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The range of measured stds for the same tensor of repeated blocks: each is a sample."""
    at = _STD
    keys, found = [], dict[tuple[str, ...], set[str]]()
    for line in lines:
        power, equals, number = line[at].rpartition(" = ")
        keys.append((re.sub(r"\d+", "#", line[0]), *line[1:at], power + equals, *line[at + 1 :]))
        found.setdefault(keys[-1], set()).add(number)
    pooled = []
    for line, key in zip(lines, keys, strict=True):
        numbers = found[key]
        if len(numbers) > 1 and not any(number.startswith("all ") for number in numbers):
            low, high = min(numbers, key=float), max(numbers, key=float)
            line = (*line[:at], f"{key[at]}{low} to {high}", *line[at + 1 :])
        pooled.append(line)
    return pooled


def _collapse(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """One line for the same tensor of repeated blocks: layers.{0..3}.mlp.weight."""
    groups: dict[tuple[Any, ...], list[list[str]]] = {}
    for name, *rest in lines:
        key = (re.sub(r"\d+", "#", name), *rest)
        groups.setdefault(key, []).append(re.findall(r"\d+", name))
    collapsed = []
    for (pattern, *rest), numbers in groups.items():
        for column in zip(*numbers, strict=True):
            pattern = pattern.replace("#", _span(sorted({int(n) for n in column})), 1)
        collapsed.append((pattern, *rest))
    return collapsed


def _span(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if first == last:
        return str(first)
    if numbers == list(range(first, last + 1)):
        return f"{{{first}..{last}}}"
    return "{" + ",".join(map(str, numbers)) + "}"


def _collapse_notes(notes: list[str]) -> list[str]:
    return [": ".join(line) for line in _collapse([tuple(n.split(": ", 1)) for n in notes])]
