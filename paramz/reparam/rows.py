"""Rows of a plan for the tensors that a weight is computed from, derived from the weight's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from paramz.plan.plan import Plan
from paramz.plan.row import PartOf, Row
from paramz.plan.rulebook import Rulebook
from paramz.reparam.recipe import Recipe, Scaling, SharingRecipe
from paramz.reparam.weights import Mapped
from paramz.theory.power import ONE, Power
from paramz.theory.rules import Role
from paramz.theory.tables import IN, OUT


def with_parts(plan: Plan, entries: Sequence[Mapped]) -> Plan:
    """The plan with rows for the parts of these weights in place of the weights' own.

    Raises:
        ValueError: the plan has no row for a weight.
    """
    by_name = {name: entry for entry in entries for name in entry.names}
    seen: dict[int, int] = {}
    rows: list[Row] = []
    moved: list[Row] = []
    for row in plan.rows:
        entry = by_name.get(row.name)
        if entry is None:
            rows.append(row)
            continue
        moved.append(row)
        shapes = _shapes(entry.recipe, row.base_shape), _shapes(entry.recipe, _wider(row))
        for name, scaling in entry.recipe.scalings.items():
            value = entry.parts[name]
            assert isinstance(value, Tensor)
            names = [f"{full}_{name}" for full in entry.names]
            at = seen.setdefault(id(value), len(rows))
            if at == len(rows):
                three = (tuple(value.shape), shapes[0][name], shapes[1][name])
                rows.append(_row(plan.rulebook, row, names, scaling, three))
            else:
                first = rows[at]
                assert first.part is not None
                # One tensor, several weights: n times the gradient. At equal depth n is the base's.
                uses = {"depth": "1"} if "depth" in row.ratios else {}
                part = replace(first.part, uses=uses)
                rows[at] = replace(first, aliases=(*first.aliases, *names), part=part)
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


def _wider(row: Row) -> tuple[int, ...]:
    return tuple(2 * n if axis in row.growing else n for axis, n in enumerate(row.base_shape))


def _shapes(recipe: Recipe, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of the parts of a weight of this shape."""
    weight = torch.empty(shape, device="meta")
    if isinstance(recipe, SharingRecipe) and recipe.shared:
        parts = recipe.split_all([weight, weight])[0]
    else:
        parts = recipe.split(weight)
    return {n: tuple(p.shape) for n, p in parts.items() if not isinstance(p, nn.Module)}


Shape = tuple[int, ...]


def _row(
    rulebook: Rulebook,
    row: Row,
    names: list[str],
    scaling: Scaling,
    shapes: tuple[Shape, Shape, Shape],
) -> Row:
    """The row of a part of a row's weight; its shapes are at the target, base and wider probe."""
    shape, base, wider = shapes
    growing = tuple(a for a, (b, w) in enumerate(zip(base, wider, strict=True)) if b != w)
    # How W's std at init moves, without the branch factor that was folded into it.
    std, branch = rulebook.of_role(row.role).init_std, _folded_branch(rulebook, row)
    if scaling.role in ("reads", "writes") and growing == (0, 1):
        role = row.role
        ratios = {**row.ratios, "fan_in": shape[1] / base[1], "fan_out": shape[0] / base[0]}
        size = scaling.grown(std) * scaling.size(branch, ONE)
    else:
        role, ratios = _role(row, scaling), dict(row.ratios)
        size = scaling.size(std * branch, IN if "fan_in" in row.ratios else OUT)
    return Row(
        name=names[0],
        aliases=tuple(names[1:]),
        shape=shape,
        base_shape=base,
        role=role,
        why=f"of {row.name}: {row.why}",
        ratios=ratios,
        growing=growing,
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
