"""Models under mup or unit-scaling, and base shape files, as paramz plans."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from paramz.anatomy.names import MUP_READOUTS, MUP_SHAPE, UNIT_TYPE
from paramz.compat.convert.code import Finding
from paramz.compat.mup.infshape import InfDim, InfShape
from paramz.compat.mup.layer import MuReadout
from paramz.compat.mup.rows import READOUT_MULTIPLIER, rows_of_shapes
from paramz.compat.mup.shape import load_base_shapes
from paramz.nn.convert.unit_plan import unit_plan
from paramz.plan.on_model import plan_of
from paramz.plan.plan import Plan


def equivalent_plan(model: nn.Module) -> Plan:
    """The plan that a model of mup or unit-scaling amounts to; the model is not changed.

    Its learning rates are those of the package, for every optimizer that paramz knows:
    ``plan.param_groups(model, "lion", lr=...)``.

    Args:
        model: a model that is under paramz, has mup's base shapes set, or consists of
            unit_scaling's layers.

    Raises:
        ValueError: it is none of these, and the message names the first parameter without a
            parametrization; or it has no parameters.

    >>> from paramz.compat.mup import set_base_shapes
    >>> model = set_base_shapes(nn.Linear(4, 32), nn.Linear(4, 8))
    >>> [row.role for row in equivalent_plan(model).rows]
    ['input', 'vector']
    """
    found = plan_of(model)
    if found is not None:
        return found
    named = dict(model.named_parameters())
    attached = {name: getattr(p, MUP_SHAPE, None) for name, p in named.items()}
    if any(getattr(p, UNIT_TYPE, None) is not None for p in named.values()):
        return unit_plan(model)
    without = [name for name, shape in attached.items() if shape is None]
    if not named:
        raise ValueError(f"this {type(model).__name__} has no parameters: there is nothing to plan")
    if without:
        shape = tuple(named[without[0]].shape)
        raise ValueError(
            f"this {type(model).__name__} is under no parametrization: {without[0]} {shape} has "
            "neither mup's infshape nor unit_scaling's mup_type. Call set_base_shapes in the "
            "function that builds it"
        )
    shapes = {
        name: InfShape(InfDim(dim.base_dim, dim.dim) for dim in shape)
        for name, shape in attached.items()
        if shape is not None
    }
    return Plan(
        parametrization=READOUT_MULTIPLIER, rows=rows_of_shapes(model, shapes), folded=False
    )


def model_findings(model: nn.Module, plan: Plan) -> list[Finding]:
    """What would become of the layers of a model if it were written for paramz."""
    found = []
    for path, module in model.named_modules():
        kind = f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"
        if any(base.__name__ in MUP_READOUTS for base in type(module).__mro__):
            own = isinstance(module, MuReadout)
            mult = getattr(module, "output_mult", 1.0)
            why = "its 1/width is folded into initial values, learning rate and epsilon"
            why += "" if mult == 1.0 else f"; multiply the logits by {mult:g} in forward"
            name = type(module).__name__ if own else kind
            found.append(Finding(path, 0, name, "nn.Linear", why))
    for row in plan.rows:
        if row.readouts:
            why = (
                "tied: the embedding keeps its size, which mup multiplies by "
                f"{math.sqrt(row.ratios['fan_out']):.4g}; the readout's multiplier is a hook"
            )
            found.append(Finding(row.name, 0, "shared weight", "", why))
    return found


def shapes_findings(path: Path) -> tuple[str, list[Finding], list[str]]:
    """What a base shape file holds: code that uses it, a finding per tensor, and notes.

    Raises:
        ValueError: the file holds no base shapes.
    """
    shapes = load_base_shapes(path)
    found = [
        Finding(
            path.name,
            0,
            f"{name} {shape.base_shape()}",
            "",
            {0: "nothing grows: scalar", 1: "one axis grows: input, output or vector"}.get(
                shape.ninf(), "hidden"
            ),
        )
        for name, shape in shapes.items()
    ]
    code = (
        "# drop-in, with the file\n"
        "from paramz.compat.mup import set_base_shapes\n"
        f"set_base_shapes(model, {str(path)!r})\n"
        "\n"
        "# paramz, without it: build(width) returns the model, with plain nn.Linear readouts\n"
        f"plan = paramz.parametrize_(model, 'mup', base=build, base_width={_width(shapes)})\n"
    )
    growing = Counter(d.base_dim for shape in shapes.values() for d in shape if d.isinf())
    sizes = ", ".join(f"{size} ({count} axes)" for size, count in growing.most_common())
    note = f"sizes at the base of the axes that grow: {sizes or 'none, so the file means SP'}"
    return code, found, [note]


def _width(shapes: Mapping[str, InfShape]) -> int | str:
    """The width of the base: the size that most of the growing axes have."""
    growing = Counter(d.base_dim for shape in shapes.values() for d in shape if d.isinf())
    return growing.most_common(1)[0][0] if growing else "..."  # type: ignore[return-value]
