"""Initial values: what the base model's init was, and what the target's must be multiplied by.

The rule wants std = (std measured on the base) * (its power of the ratios). Only the exact
difference between it and the law of the model's own init (paramz/apply/native.py) is applied: where
the model already follows the rule, its random numbers stay as drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from paramz.anatomy.depth_factors import held_at_base
from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import is_trainable_kind, listed
from paramz.apply.measured import known_init, measure_init
from paramz.apply.native import falls_with_depth, init_factor, over_blocks, torch_law
from paramz.apply.pieces import growing_rows, growing_views, joined, slice_views
from paramz.plan.plan import Plan
from paramz.plan.row import Init, Row, Slice
from paramz.plan.rulebook import Rulebook


def draw_(parameter: torch.Tensor, init: Init, std: float) -> None:
    """Fill a tensor with fresh values of the base's kind and the given std."""
    with torch.no_grad():
        if parameter.is_complex():
            parameter = torch.view_as_real(parameter)
        if init.kind == "constant":
            parameter.fill_(init.value)
        elif init.kind == "uniform":
            bound = math.sqrt(3.0) * std
            parameter.uniform_(-bound, bound)
        else:
            parameter.normal_(0.0, std)


def draw_row_(parameter: torch.Tensor, row: Row, rulebook: Rulebook) -> None:
    """Fill a tensor with fresh values under a plan; slices that stay have their own.

    Args:
        parameter: the tensor.
        row: its row, with what was measured.
        rulebook: the plan's.
    """
    pieces = [(row, [parameter])]
    pieces += [(row.of(part), slice_views(parameter, part)) for part in row.slices]
    for own, views in pieces:
        std = rulebook.init_std(own)
        if own.base_init is None or std is None:
            raise ValueError(f"the plan holds no init for {row.name}")
        init = replace(own.base_init, value=own.base_init.value * rulebook.branch_factor(own))
        for view in views:
            draw_(view, init, std)


def unmasked(parameter: torch.Tensor, row: Row) -> torch.Tensor:
    """The entries of a tensor that its mask leaves, where that has been put into the values.

    Args:
        parameter: the tensor.
        row: knows whether it is sparse.
    """
    if row.density in (None, 1.0) or parameter.is_meta:
        return parameter
    values = parameter.detach()
    return values[values != 0]


def _base_init(probes: Probes, name: str, parameter: torch.Tensor, row: Row) -> Init:
    """The init of a row's twin in the base: of its rows that grow, where those are known apart."""
    if not parameter.is_meta:
        return measure_init(growing_rows(parameter, row, in_base=True))
    if probes.laws is not None:
        return known_init(probes.laws[name], parameter.dtype)
    raise ValueError(
        "the base model is on the meta device, so its init cannot be measured: pass a factory or a "
        "real module as base, or init=False"
    )


def initialise_(model: nn.Module, probes: Probes, made: Plan) -> Plan:
    """Scale every tensor's own random values to the rule, and record what was measured."""
    parameters = dict(model.named_parameters())
    base_parameters = dict(probes.base.named_parameters(remove_duplicate=False))
    at_base = all(
        row.shape == row.base_shape and all(ratio == 1.0 for ratio in row.ratios.values())
        for row in made.rows
    )
    rulebook = made.rulebook
    rows, falling, held = [], 0, list[str]()
    adapted = "rank" in made.parametrization.scales

    def measured(row: Row) -> tuple[Init, Init]:
        twin = probes.twin_name(row.name) or row.name
        values = unmasked(growing_rows(parameters[row.name], row), row)
        return _base_init(probes, twin, base_parameters[twin], row), measure_init(values)

    real = [
        row
        for row in made.rows
        if not (at_base or parameters[row.name].is_meta or (adapted and not row.adapted))
    ]
    blocks = over_blocks(real, measured)
    for row in made.rows:
        if adapted and not row.adapted:
            rows.append(row)  # of the trained model that the adapters are on
            continue
        twin = probes.twin_name(row.name) or row.name
        base_parameter, parameter = base_parameters[twin], parameters[row.name]
        base_init = _base_init(probes, twin, base_parameter, row)
        factor, native = None, None
        if not parameter.is_meta and is_trainable_kind(parameter):
            values = unmasked(growing_rows(parameter, row), row)
            own = measure_init(values, exact=False)
            known = torch_law(twin, probes.base, base_init, row.name, model, own)
            wanted = rulebook.weight(row).init_std(row.ratios)
            if at_base:
                factor = 1.0
            elif own.kind == "constant":
                depth = row.ratios.get("depth", 1.0)
                back = held_at_base(own.value, base_init.value, depth)
                held += [row.name] if back != 1.0 else []
                factor = rulebook.branch_factor(row) * back
            else:
                factor = init_factor(
                    row, wanted, base_init, own, known, values, blocks.get(row.name)
                )
                native = wanted / factor
                falling += falls_with_depth(row, native)
        slices = tuple(
            _scale_slice_(row, part, (base_parameter, parameter), rulebook, native)
            for part in row.slices
        )
        if factor not in (1.0, None):
            with torch.no_grad():
                for view in growing_views(parameter, row):
                    view.mul_(factor)
        rows.append(replace(row, base_init=base_init, factor=factor, slices=slices))
    notes = made.notes
    if falling:
        notes += (
            f"the model's own init of {falling} tensors falls like depth^-1/2: the scheme's factor "
            "replaces it",
        )
    if held:
        notes += (
            f"{listed(held, 1)}: its start in the model's own init moves with depth, for which the "
            "plan has the rule, so it starts at the base's",
        )
    return replace(made, rows=tuple(rows), notes=notes)


def _scale_slice_(
    row: Row,
    part: Slice,
    tensors: tuple[torch.Tensor, torch.Tensor],
    rulebook: Rulebook,
    native: float | None,
) -> Slice:
    """Scale a slice of a fused map to the rule of its own role, and say what was measured.

    Args:
        row: the whole tensor's.
        part: the slice.
        tensors: in the base and in the target.
        rulebook: the plan's.
        native: std target / std base of the other rows' own init; None if they were not scaled.
    """
    base, target = tensors
    if not part.spans:
        return part
    part = replace(
        part,
        base_init=None if base.is_meta else measure_init(joined(slice_views(base, part, True))),
    )
    if target.is_meta or not is_trainable_kind(target):
        return part
    views = slice_views(target, part)
    if part.base_init is None or native is None:
        return replace(part, factor=1.0)
    own_row, values = row.of(part), joined(views)
    own, wanted = measure_init(values), rulebook.weight(own_row).init_std(row.ratios)
    # One law for all rows is the rule; where the slice shows another one, that holds.
    known = native if _fits(native, part.base_init, own) else None
    factor = init_factor(own_row, wanted, part.base_init, own, known, values)
    if factor != 1.0:
        with torch.no_grad():
            for view in views:
                view.mul_(factor)
    return replace(part, factor=factor)


def _fits(law: float, base: Init, target: Init) -> bool:
    """Whether measured stds may follow a law, by the sizes of their samples."""
    if "constant" in (base.kind, target.kind):
        return False
    error = 4.0 * math.sqrt(0.5 / base.size + 0.5 / target.size)
    return abs(math.log(target.std / base.std / law)) < error
