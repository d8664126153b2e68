"""Fused maps in a plan: the slices that stay have roles of their own, and one tensor has one rate.

Initial values are set slice by slice. A learning rate cannot be, so an optimizer under which the
slices would want different ones is refused, or takes other tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from paramz.anatomy.axes import Axes
from paramz.anatomy.facts import TensorFacts
from paramz.anatomy.paths import pattern
from paramz.anatomy.tensors import listed
from paramz.plan.row import Row, Slice
from paramz.plan.rulebook import Rulebook
from paramz.theory.families import Family
from paramz.theory.rules import Role


def slices_of(facts: TensorFacts, role: Role, axes: Axes) -> tuple[Slice, ...]:
    """The slices of a tensor that stay, each with the role of a tensor of its own.

    Args:
        facts: the tensor's.
        role: of the rows that grow.
        axes: which of its axes are fan_in and fan_out.
    """
    found: list[Slice] = []
    for axis, number in facts.stays.items():
        if axis not in axes.fan_out and not axes.vector:
            continue  # of what goes in, `notes_on_slices` speaks
        for part in dict.fromkeys(span.part for span in facts.spans):
            rows = [span for span in facts.spans if span.part == part]
            size = sum(span.stop - span.start for span in rows)
            own: Role = ("latent" if rows[0].latent else "inward") if role == "hidden" else role
            spans = tuple((span.start, span.stop, span.base_start) for span in rows)
            found.append(Slice(own, axis, size, spans))
        if not facts.spans:
            found.append(Slice("inward" if role == "hidden" else role, axis, number))
    return tuple(found)


def slice_rows(row: Row) -> Iterator[Row]:
    """The slices of a fused map whose init is set apart, as rows with names of their own."""
    for part in row.slices:
        if part.spans:
            name = f"{row.name}[{part.index}]"
            yield replace(row.of(part), name=name, aliases=(), why="stays, and the rest grows")


def notes_on_slices(
    tensors: Sequence[TensorFacts], rows: Sequence[Row]
) -> tuple[list[str], list[str]]:
    """What a reader of the plan should know of fused maps, and what to warn of.

    Args:
        tensors: those of the target.
        rows: theirs.
    """
    known: dict[str, str] = {}
    unknown: dict[str, str] = {}
    faint: dict[str, str] = {}
    for facts, row in zip(tensors, rows, strict=True):
        if row.told and not row.slices:
            continue  # all of it is what the user said
        for axis, number in facts.stays.items():
            what = f"axis {axis} is {facts.base_shape[axis]} in the base, of which {number} stay"
            key = f"{pattern(row.name)} {what}"
            if _goes_in(facts, axis):
                if row.ratios.get("fan_in", 1.0) != 1.0:
                    faint.setdefault(key, f"{row.name} ({what})")
            elif len(row.growing) > 1 and facts.spans:
                known.setdefault(f"{key} {_where(row)}", f"{row.name} ({_where(row)})")
            elif len(row.growing) > 1:
                unknown.setdefault(key, f"{row.name} ({what})")
    return _said(known, _KNOWN) + _said(unknown, _UNKNOWN), _said(faint, _FAINT)


def _goes_in(facts: TensorFacts, axis: int) -> bool:
    """Whether an axis is one that is summed over."""
    uses = (use.axes_where(facts.growing) for use in facts.tensor.uses)
    axes = facts.place.axes or next((each for each in uses if each is not None), Axes())
    return axis in axes.fan_in


_RATES = (
    "Their lr is that of the other rows under Adam and its relatives; for SGD, Muon and the others "
    "under which it is not, parameter groups are refused"
)
_KNOWN = (
    "several maps in one tensor. These rows stay while the others grow, and have the init of a map "
    f"of their own. {_RATES}"
)
_UNKNOWN = (
    "several maps in one tensor. No run shows which of its rows stay while the others grow, so "
    "all of them have the init of those that grow, where a map of their own (inward) has (width / "
    "width of the base)^-1/2 times that. Pass example= (a batch, as the model is called), split "
    f"the layer, or multiply those rows after parametrize_. {_RATES}"
)
_FAINT = (
    "a part of what goes in stays while the rest grows, and its weights start and learn like those "
    "of the rest: in a wider model less than in the base, so that this input fades. Give it a "
    "layer of its own, as in self.a(hidden) + self.b(inputs)"
)


def _said(alike: Mapping[str, str], text: str) -> list[str]:
    return [f"{listed(list(alike.values()), 4)}: {text}"] if alike else []


def _where(row: Row) -> str:
    """Which rows have which role."""
    return ", ".join(f"[{part.index}] {part.role}" for part in row.slices)


def refuse_two_rates(rulebook: Rulebook, row: Row, family: Family) -> None:
    """Raise if slices of a tensor want another learning rate or damping than its other rows.

    Args:
        rulebook: the plan's.
        row: the tensor's.
        family: the optimizer's.

    Raises:
        ValueError: they do; the message says by how much, and the ways out.
    """
    for part in row.slices:
        own = row.of(part)
        rules = [(rulebook.rule(each, family), each.ratios) for each in (row, own)]
        for what in ("lr", "damping_a", "damping_b"):
            grow, stay = (getattr(rule, what)(ratios) for rule, ratios in rules)
            if not math.isclose(grow, stay, rel_tol=1e-9):
                raise ValueError(
                    f"{row.name} {row.shape} is several maps in one tensor: {part.size} rows of "
                    f"axis {part.axis} stay while the width grows, and under {family.name} they "
                    f"want {stay:.4g} times the base's {what.replace('_', ' ')}, and the others "
                    f"{grow:.4g} times. Take AdamW for it, under which both want the same "
                    "(plan.split_groups gives such tensors to its second optimizer); or give "
                    "those rows a layer of their own; or plan all of it as what grows, with "
                    f"roles={{{pattern(row.name) + '$'!r}: {row.role!r}}}"
                )
