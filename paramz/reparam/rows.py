"""Rows of a plan for the tensors that a weight is computed from, derived from the weight's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from paramz.plan.plan import Plan
from paramz.plan.row import PartOf, Row
from paramz.plan.rulebook import Rulebook
from paramz.reparam.modules import part_name
from paramz.reparam.recipe import Recipe, Scaling, SharingRecipe
from paramz.reparam.weights import Mapped
from paramz.theory.power import ONE, Power
from paramz.theory.printed import IN, OUT
from paramz.theory.rules import Role

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The shapes of a part at the target, at the base and at a base of twice the width."""

    target: Shape
    base: Shape
    wider: Shape

    @property
    def growing(self) -> tuple[int, ...]:
        """The axes that grow with width."""
        pairs = zip(self.base, self.wider, strict=True)
        return tuple(axis for axis, (base, wider) in enumerate(pairs) if base != wider)


def with_parts(plan: Plan, entries: Sequence[Mapped]) -> Plan:
    """The plan with rows for the parts of these weights in place of the weights' own.

    Raises:
        ValueError: the plan has no row for a weight.
    """
    by_name = {name: entry for entry in entries for name in entry.names}
    seen: dict[int, int] = {}  # the id of a part -> where its row is
    rows: list[Row] = []
    moved: list[Row] = []
    for row in plan.rows:
        entry = by_name.get(row.name)
        if entry is None:
            rows.append(row)
            continue
        moved.append(row)
        for made, value in _part_rows(plan.rulebook, row, entry):
            at = seen.setdefault(id(value), len(rows))
            if at == len(rows):
                rows.append(made)
            else:
                rows[at] = _used_again(rows[at], made, row)
    missing = sorted({e.names[0] for e in entries} - {row.name for row in moved})
    if missing:
        raise ValueError(
            f"the plan has no row for {', '.join(missing)}: was it made for this model?"
        )
    return replace(plan, rows=tuple(rows), computed=(*plan.computed, *moved))


def without_parts(plan: Plan, model: nn.Module) -> Plan:
    """The inverse of `with_parts`, for a model whose weights are plain again."""
    order = {name: n for n, (name, _) in enumerate(model.named_parameters())}
    back = {row.name: row for row in plan.computed if row.name in order}
    rows: list[Row] = []
    rows += [row for row in plan.rows if row.part is None or row.part.weight not in back]
    rows += back.values()
    rows.sort(key=lambda row: order.get(row.name, len(order)))
    left = tuple(row for row in plan.computed if row.name not in back)
    return replace(plan, rows=tuple(rows), computed=left)


def _part_rows(rulebook: Rulebook, row: Row, entry: Mapped) -> list[tuple[Row, Tensor]]:
    """A row for each trained part of one weight, and the part."""
    base, wider = _shapes(entry.recipe, row.base_shape), _shapes(entry.recipe, _wider(row))
    made = []
    for name, scaling in entry.recipe.scalings.items():
        value = entry.parts[name]
        assert isinstance(value, Tensor)
        names = [part_name(full, name) for full in entry.names]
        shapes = Shapes(tuple(value.shape), base[name], wider[name])
        made.append((_row(rulebook, row, names, scaling, shapes), value))
    return made


def _used_again(first: Row, again: Row, weight: Row) -> Row:
    """The row of a part that several weights share: n of them give it n times the gradient.

    Raises:
        ValueError: the weights have different rules.
    """
    assert first.part is not None and again.part is not None
    if (first.role, first.ends, first.part.size) != (again.role, again.ends, again.part.size):
        raise ValueError(
            f"{first.part.weight} and {weight.name} share {first.name}, but one of them is "
            f"{_said(first)} and the other {_said(again)}, so they have different rules. Build the "
            "model afresh and call reparametrize_ once for each kind, as in where='fc1' and then "
            "where='fc2': names that differ in numbers only share within one call"
        )
    # The base's weights share it as well, so only as many more uses count as depth has grown by.
    uses = {"depth": "1"} if "depth" in weight.ratios else {}
    aliases = (*first.aliases, again.name, *again.aliases)
    return replace(first, aliases=aliases, part=replace(first.part, uses=uses))


def _said(row: Row) -> str:
    return f"the end of a residual branch ({row.role})" if row.ends else row.role


def _wider(row: Row) -> Shape:
    return tuple(2 * n if axis in row.growing else n for axis, n in enumerate(row.base_shape))


def _shapes(recipe: Recipe, shape: Shape) -> dict[str, Shape]:
    """The shapes of the parts of a weight of this shape."""
    weight = torch.empty(shape, device="meta")
    if isinstance(recipe, SharingRecipe) and recipe.shared:
        parts = recipe.split_all([weight, weight])[0]
    else:
        parts = recipe.split(weight)
    return {n: tuple(p.shape) for n, p in parts.items() if not isinstance(p, nn.Module)}


def _row(rulebook: Rulebook, row: Row, names: list[str], scaling: Scaling, shapes: Shapes) -> Row:
    """The row of a part of the weight that ``row`` is about."""
    # How W's std at init scales, apart from the branch factor that was folded into it.
    std, branch = rulebook.of_role(row.role).init_std, _folded_branch(rulebook, row)
    ratios = dict(row.ratios)
    role: Role
    if scaling.role in ("reads", "writes") and shapes.growing == (0, 1):
        role = row.role
        ratios["fan_in"] = shapes.target[1] / shapes.base[1]
        ratios["fan_out"] = shapes.target[0] / shapes.base[0]
        size = scaling.grown(std) * scaling.size(branch, ONE)
    else:
        role = _role(row, scaling)
        size = scaling.size(std * branch, IN if "fan_in" in row.ratios else OUT)
    return Row(
        name=names[0],
        aliases=tuple(names[1:]),
        shape=shapes.target,
        base_shape=shapes.base,
        role=role,
        why=f"of {row.name}: {row.why}",
        ratios=ratios,
        growing=shapes.growing,
        readouts=row.readouts if scaling.role == "weight" else (),
        block=row.block,
        ends=row.ends and scaling.branch,
        part=PartOf(row.name, size.to_json(), decays=scaling.decays),
    )


def _folded_branch(rulebook: Rulebook, row: Row) -> Power:
    """The branch factor that was folded into W."""
    return rulebook.scheme.branch if row.ends and rulebook.folded else ONE


def _role(row: Row, scaling: Scaling) -> Role:
    match scaling.role:
        case "weight":
            return row.role
        case "per output":
            return "vector" if "fan_out" in row.ratios else "scalar"
        case "reads":
            return "output" if "fan_in" in row.ratios else "scalar"
        case "writes":
            return "input" if "fan_out" in row.ratios else "scalar"
        case "number":
            return "scalar"
