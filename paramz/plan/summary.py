"""The plan as a table for people: rich in a terminal, HTML in a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any, NamedTuple

from paramz.anatomy.names import EMBED_SCALE
from paramz.plan.collapsed import collapse, collapse_notes, pool_std
from paramz.plan.legend import legend
from paramz.plan.own_factor import OwnFactor, own_factor
from paramz.plan.ratios import decay_ratio, lr_ratio
from paramz.plan.row import ModuleScale, Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.sliced import slice_rows
from paramz.theory.families import Family
from paramz.theory.families import family as find_family
from paramz.theory.power import ONE, Power

_COLUMNS = ("tensor", "shape", "role", "why", "init std", "multiplier", "lr")
_STD, _LR = _COLUMNS.index("init std"), _COLUMNS.index("lr")
_ALWAYS = ("init std", "lr")  # shown even where they are 1


@dataclass(frozen=True)
class Summary:
    """A table of text: ``print`` it, or let a notebook render it."""

    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def noted(self, notes: tuple[str, ...]) -> Summary:
        """The same table with more notes below it."""
        return replace(self, notes=(*self.notes, *notes))

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=None, header_style="bold")
        for column in self.columns:
            table.add_column(column, no_wrap=True)
        for row in self.cells:
            table.add_row(*row)
        text = StringIO()
        # As wide as the table is: rich would cut numbers off to make room for a long name. What
        # stands in brackets, or between colons, is a user's: no style, and no emoji.
        console = Console(file=text, width=10_000, color_system=None, markup=False, emoji=False)
        console.print(table)
        for note in self.notes:
            console.print(note, width=240)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def within(self, width: int) -> str:
        """The table if no line of it is longer than this; else a few short lines per row.

        Other entries than init and learning rate are left out of those where they are 1.

        >>> columns = ("tensor", "shape", "role", "why", "init std", "lr", "eps")
        >>> row = ("a.weight", "8x8", "hidden", "Linear", "0.5", "0.25", "1")
        >>> print(Summary("mup · adamw", columns, (row,), ()).within(40))
        mup · adamw. Left out: entries of 1
        a.weight  8x8  hidden (Linear)
          init std 0.5, lr 0.25
        """
        whole = str(self)
        if all(len(line) <= width for line in whole.splitlines()[1:]):
            return whole
        first = self.columns.index("why")  # the columns before it say which tensor it is
        lines = []
        for row in self.cells:
            named = zip(self.columns[first + 1 :], row[first + 1 :], strict=True)
            told = [
                f"{name} {cell}"
                for name, cell in named
                if cell not in ("", "1") or (cell and name in _ALWAYS)
            ]
            name = "  ".join(row[:first]) + f" ({row[first]})"
            lines += [_wrapped(name, width), *_filled(told, width)]
        title = f"{self.title}. Left out: entries of 1"
        return "\n".join(
            [_wrapped(title, width), *lines, *(_wrapped(n, width) for n in self.notes)]
        )

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


def _wrapped(text: str, width: int) -> str:
    """The text in lines; a word is never broken, be it a tensor's name."""
    return textwrap.fill(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _filled(parts: Sequence[str], width: int) -> list[str]:
    """Indented lines of parts with commas between, as many in each as it holds."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(f"  {part}")
    return [f"{line}," if line is not lines[-1] else line for line in lines]


def summarize(
    rulebook: Rulebook,
    rows: Sequence[Row],
    asked: tuple[Any, Any],
    changes: Sequence[str],
    *,
    full: bool,
) -> Summary:
    """The rows of a plan as a table, see `Plan.summary`.

    Args:
        rulebook: the plan's.
        rows: the plan's.
        asked: the optimizer whose lr, eps (or damping) and decay are shown, and Shampoo's exponent.
        changes: what the plan changes in the model's modules, each ``path: what``.
        full: one line per tensor; else repeated blocks are collapsed.
    """
    optimizer, exponent = asked
    family, notes = find_family(optimizer, exponent=exponent), list(changes)
    own: OwnFactor | None = None
    try:
        own = own_factor(family, optimizer, {})
    except ValueError as error:
        notes.append(f"lr: with the factor of torch's own {family.name} on its steps, but {error}")
    known: dict[tuple[Any, ...], _Shared] = {}
    lines = []
    for tensor in rows:
        settings: tuple[str, ...] = ()
        for row in (tensor, *slice_rows(tensor)):
            kind = row.kind
            if kind not in known:
                known[kind] = _shared(rulebook, row, family, own)
            cells = _cells(row, known[kind])
            # A slice starts by a rule of its own; the optimizer has one setting for the tensor.
            settings = settings or cells[_LR:]
            lines.append((*cells[:_LR], *settings))
    if not full:
        lines = collapse(pool_std(lines, _STD))
    measured = any(row.base_init is not None for row in rows)
    title = (
        f"{rulebook.scheme.name} · {family.name} · {len(rows)} tensors. Each entry: the rule, and "
        f"the number that multiplies the base value{' (std: the value itself)' if measured else ''}"
    )
    if family.damping is not None:
        notes.append(
            "dampings are of constants; damping relative to a factor's trace needs no rule"
        )
    constants = ("eps",) if family.damping is None else ("damping A", "damping B")
    notes += legend(rows)
    columns = (*_COLUMNS, *constants, "decay")
    return Summary(title, columns, tuple(lines), tuple(collapse_notes(notes)))


class _Shared(NamedTuple):
    """What all rows of one kind show: shape, what multiplies their init, and what is behind it."""

    shape: str
    init: float
    branch: float
    init_text: str
    cells: tuple[str, ...]


def _shared(rulebook: Rulebook, row: Row, family: Family, own: OwnFactor | None) -> _Shared:
    weight = rulebook.weight(row)
    init_text = _power(row, weight.init_std)
    shape = "x".join(map(str, row.shape)) or "()"
    init = shape, weight.init_std(row.ratios), rulebook.branch_factor(row), init_text
    multiplier = _entry(row, weight.multiplier, weight.multiplier(row.ratios))
    try:
        rule = rulebook.rule(row, family)
    except KeyError:
        none = "no rule", "", *([""] if family.damping is None else ["", ""])
        return _Shared(*init, (multiplier, *none))
    powers = [] if family.eps is None else [rule.eps]
    if family.damping is not None:
        powers = [rule.damping_a, rule.damping_b]
    decay = rule.weight_decay * (rule.eps if family.decay == "l2-normalised" else ONE)
    cells = (
        multiplier,
        _entry(row, rule.lr, lr_ratio(rulebook, row, family, own)),
        *([_entry(row, power, power(row.ratios)) for power in powers] or [""]),
        _entry(row, decay, decay_ratio(rulebook, row, family, own)),
    )
    return _Shared(*init, cells)


def _cells(row: Row, shared: _Shared) -> tuple[str, ...]:
    name = _all_names(row) if row.aliases else row.name
    if row.is_frozen:
        return name, shared.shape, "frozen", row.why, "", *[""] * len(shared.cells)
    return (
        name,
        shared.shape,
        row.role,
        row.why,
        _init(row, shared),
        *shared.cells,
    )


def _all_names(row: Row) -> str:
    """A tensor's names; of a block that stands in many places the first two."""
    shown, hidden = row.aliases, len(row.aliases) - 1
    if hidden > 1:
        shown = row.aliases[:1]
    more = f" and {hidden} more" if hidden > 1 else ""
    return row.name + "".join(f" = {alias}" for alias in shown) + more


def _init(row: Row, shared: _Shared) -> str:
    if row.base_init is None:
        return f"{shared.init_text}{shared.init:.4g}"
    if row.base_init.kind == "constant":
        return f"all {row.base_init.value * shared.branch:g}"
    # Two digits: the base is a sample, and equal blocks should look equal.
    return f"{shared.init_text}{row.base_init.std * shared.init:.2g}"


def _entry(row: Row, power: Power, value: float) -> str:
    return f"{_power(row, power)}{value:.4g}"


def _power(row: Row, power: Power) -> str:
    """The power, without scales that the tensor does not have, and an equals sign."""
    own = Power(**{scale: e for scale, e in power.exponents if scale in row.ratios})
    return "" if own == ONE else f"{own} = "


def changes_of(
    attention: Sequence[ModuleScale],
    multipliers: Mapping[str, float],
    branches: Mapping[str, float],
) -> list[str]:
    """What the plan changes in the model's modules, one note each; the arguments are the plan's."""
    said = [f"{scale.module}: {_said(scale)}" for scale in attention]
    said += [f"{path}: input times {c:.4g}" for path, c in multipliers.items()]
    return said + [f"{path}: output times {c:.4g}" for path, c in branches.items()]


def _said(scale: ModuleScale) -> str:
    kind = "attention logits, " if scale.kind == "attention" else ""
    kind = "" if scale.attribute == EMBED_SCALE else kind  # of plans that were saved before
    return f"{kind}{scale.attribute} {scale.plain:.4g} -> {scale.value:.4g}"
