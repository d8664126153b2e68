"""What stands in the table of a check beside each number: names, roles and units from the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy.paths import split
from paramz.check.jobs import MODEL, Rows, input_of
from paramz.check.recording import Record
from paramz.check.update import COMPUTING
from paramz.check.values import Slices
from paramz.plan.plan import Plan
from paramz.plan.row import Row


@dataclass(frozen=True)
class Labels:
    """What stands in a row beside the number.

    Attributes:
        head: parametrization, optimizer, scale and seed.
        shown: module of this model -> module of the smallest one, for outputs and for inputs; None:
            the same names.
        units: modules whose output is measured in units of the branch factor, or of a factor that
            makes up for one in forward code.
        roles: module -> role of its main tensor; and that of a slice of its output, or of an input.
        last: rows after which nothing that grows is applied.
        scaled: modules whose input the plan multiplies, so that its size before that says nothing.
    """

    head: tuple[Any, ...]
    shown: tuple[Mapping[str, str], Mapping[str, str]] | None
    units: Mapping[str, float]
    roles: Mapping[str, str]
    last: frozenset[str] = frozenset()
    scaled: frozenset[str] = frozenset()

    def rows(self, lr: float, step: int, quantity: str, sizes: Mapping[str, float]) -> Rows:
        """One row per module call that is shown."""
        rows: Rows = []
        for call, size in sizes.items():
            row, again, number = call.partition("#")
            module = row if row == MODEL else row.partition("(")[0]
            own = not row.endswith(input_of(""))
            if not own and module in self.scaled:
                continue
            if self.shown is None or row == MODEL:
                name: str | None = module
            else:
                name = self.shown[0 if own else 1].get(module)
            if name is None:
                continue
            unit = self.units.get(module, 1.0) if own else 1.0
            role = self.roles.get(row, "")
            label = f"{name}{row[len(module) :]}{again}{number}"
            last = call in self.last
            rows.append((*self.head, lr, step, label, role, quantity, size / unit, last))
        return rows


def branch_units(plan: Plan) -> dict[str, float]:
    """Modules whose output is that of a residual branch -> the branch factor in it."""
    blocks = {row.block for row in plan.rows if row.block is not None}
    rulebook = plan.rulebook
    ends = {split(row.name)[0]: rulebook.branch_factor(row) for row in plan.rows if row.ends}
    ends |= plan.branches
    units = {}
    for path, factor in ends.items():
        while path not in blocks and path:
            units[path] = factor
            path, _ = split(path)
    return units


def held_units(plan: Plan) -> dict[str, float]:
    """Layers before a factor in forward code -> what the plan has them multiplied by for it.

    Their product with the code's factor keeps its size, and not what they put out by themselves.
    """
    units = dict(plan.behind)
    for row in plan.rows:
        path = split(row.name)[0]
        if row.role == "input" and path in plan.multipliers and path not in row.readouts:
            # What is left beside the multiplier of the scheme.
            own = plan.rulebook.of_role(row.role).multiplier(row.ratios)
            units[path] = plan.multipliers[path] / own
    return units


def adapter_units(plan: Plan) -> dict[str, float]:
    """Last factors of adapters -> what has to be divided out for the scaling in forward code.

    Their output times that scaling is what the layer gets, which is to keep its size.
    """
    return {
        split(row.name)[0]: 1.0 / row.ratios["scaling"]
        for row in plan.rows
        if row.ratios.get("scaling", 1.0) != 1.0
    }


def module_roles(plan: Plan) -> dict[str, str]:
    """Module path -> role of its main tensor, the largest one; a tied readout is an output."""
    largest: dict[str, Row] = {}
    for row in plan.rows:
        # What torch computes a weight from belongs to the module that has the weight.
        path = split(row.name)[0].partition(f".{COMPUTING}.")[0]
        if path not in largest or math.prod(row.shape) > math.prod(largest[path].shape):
            largest[path] = row
    roles: dict[str, str] = {path: row.role for path, row in largest.items()}
    for path, slices in slices_shown(plan).items():
        roles.update({f"{path}({label})": label for label, _, _ in slices})
    for row in plan.rows:
        roles.update(dict.fromkeys(row.readouts, "output"))
    return roles


def slices_shown(plan: Plan) -> dict[str, Slices]:
    """Path of a fused map -> what is shown of its output alone: the slices that stay, by roles.

    As rows ``path(role)``, since where they lie moves with width. Channels of images and signals
    stand second, features last.
    """
    found: dict[str, dict[tuple[str, int], list[tuple[int, int]]]] = {}
    for row in plan.rows:
        for part in row.slices:
            if part.spans:
                axis = 1 if len(row.shape) > 2 else -1
                spans = [(start, stop) for start, stop, _ in part.spans]
                together = found.setdefault(split(row.name)[0], {})
                together.setdefault((part.role, axis), []).extend(spans)
    return {
        path: [(role, axis, spans) for (role, axis), spans in together.items()]
        for path, together in found.items()
    }


def growing(model: nn.Module, plan: Plan) -> list[nn.Parameter]:
    """The matrices of a model that grow with width."""
    names = {row.name for row in plan.rows if row.growing and len(row.shape) > 1}
    return [p for name, p in model.named_parameters() if name in names]


def model_role(plan: Plan, record: Record) -> dict[str, str]:
    """The role of the model's own output: a readout's, unless it is as wide as the model."""
    if MODEL not in record.outputs:
        return {}
    widths = {row.shape[axis] for row in plan.rows for axis in row.growing}
    shape = record.outputs[MODEL].shape
    features = shape[1 if len(shape) > 3 else -1]  # channels of images stand second
    return {} if features in widths else {MODEL: "output"}
