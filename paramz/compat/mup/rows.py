"""From base shapes to the rows of a plan.

mup reads every tensor as (fan_out, fan_in, ...). Here the type of the module that owns a tensor
decides which axis is which, where it is known (transformers' Conv1D, transposed convolutions,
stacks of experts). All other tensors are read as mup reads them: of two growing axes the first is
fan_out and the second fan_in; one growing axis has the same rules whichever of the two it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from paramz.anatomy.axes import Axes, axes_of
from paramz.anatomy.tensors import Owned, owners_of_parameters
from paramz.compat.mup.infshape import InfShape
from paramz.plan.roles import role_by_axes
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.theory.families import COLUMNS
from paramz.theory.printed import IN
from paramz.theory.rules import Role
from paramz.theory.tables import MUP

# TP-V, table 8: the readout's 1/fan_in is a multiplier, which MuReadout applies. So the initial
# values and learning rate of every tensor with one growing axis follow one rule. It is MUP with a
# factor moved from the readout's init to its multiplier.
READOUT_MULTIPLIER = replace(
    MUP.shift(COLUMNS, output=1 / IN),
    name="mup, readout multiplier",
    source="Yang et al. 2022 (TP-V, arXiv 2203.03466) table 8, as in the mup package",
)
RULES = Rulebook(READOUT_MULTIPLIER, folded=False)


def rows_of_shapes(
    model: nn.Module, shapes: Mapping[str, InfShape], roles: Mapping[str, Axes] | None = None
) -> tuple[Row, ...]:
    """One row per parameter of a model.

    Args:
        model: the model.
        shapes: the `InfShape` of every parameter, by its first name.
        roles: what the axes of parameters mean, by regular expressions for their names.

    Raises:
        ValueError: three or more axes of a tensor grow and its module's type does not say what they
            mean, or a pattern in ``roles`` matches no parameter.
    """
    tensors = {owners[0].name: owners for owners in owners_of_parameters(model)}
    for pattern in roles or {}:
        if not any(re.search(pattern, name) for name in tensors):
            raise ValueError(
                f"roles[{pattern!r}] matches no parameter; there are {', '.join(tensors)}"
            )
    rows = []
    for name, owners in tensors.items():
        declared = next((a for p, a in (roles or {}).items() if re.search(p, name)), None)
        rows.append(row_of_shape(name, shapes[name], owners, declared=declared))
    return tuple(rows)


def row_of_shape(
    name: str,
    shape: InfShape,
    owners: Sequence[Owned],
    *,
    declared: Axes | None = None,
    main: int | None = None,
) -> Row:
    """The row of one tensor.

    Args:
        name: its name.
        shape: its axes.
        owners: the modules that own it.
        declared: what its axes mean, if the user says so.
        main: which of its axes is fan_in, where two grow and neither the user nor a module's type
            says which; the last one if left out.

    Raises:
        ValueError: three or more axes grow, and neither the user nor a module's type says what they
            mean.
    """
    growing = tuple(axis for axis, dim in enumerate(shape) if dim.isinf())
    sizes = tuple(int(dim.dim or 0) for dim in shape)
    found: dict[Role, tuple[Axes, str, list[str]]] = {}
    for owner in owners:
        known = declared or axes_of(owner.module, owner.local, sizes)
        if known is not None:
            kind = "roles" if declared else type(owner.module).__name__
            role, why = role_by_axes(known, growing, kind)
            found.setdefault(role, (known, why, []))[2].append(owner.path)
    readouts: tuple[str, ...] = ()
    if not growing:
        role, axes, why = "scalar", Axes(), "no axis grows"
    elif not found:
        role, axes, why = _by_number(name, sizes, growing, main)
    else:
        role = "input" if "input" in found else next(iter(found))
        axes, why, _ = found[role]
        if role == "input" and "output" in found:
            why, readouts = "tied: embedding and readout", tuple(found["output"][2])
    return Row(
        name=name,
        aliases=tuple(owner.name for owner in owners[1:]),
        shape=sizes,
        base_shape=tuple(
            size if dim.base_dim is None else dim.base_dim
            for size, dim in zip(sizes, shape, strict=True)
        ),
        role=role,
        why=why,
        ratios={
            scale: math.prod(shape[axis].width_mult() for axis in used)
            for scale, used in (
                ("fan_in", [a for a in axes.fan_in if a in growing]),
                ("fan_out", [a for a in axes.fan_out if a in growing]),
            )
            if used
        },
        growing=growing,
        readouts=readouts,
    )


def _by_number(
    name: str, sizes: tuple[int, ...], growing: tuple[int, ...], main: int | None
) -> tuple[Role, Axes, str]:
    """Read a tensor of which only the growing axes are known, as mup does."""
    if len(growing) == 1:
        return "vector", Axes(fan_out=growing, vector=True), "one axis grows"
    if len(growing) == 2:
        fan_in = growing[-1] if main is None else main
        rest = tuple(axis for axis in growing if axis != fan_in)
        return "hidden", Axes(fan_in=(fan_in,), fan_out=rest), "two axes grow: (fan_out, fan_in)"
    raise ValueError(
        f"{name} {sizes}: axes {growing} grow with width, and nothing says which are fan_in and "
        "which fan_out. Say so in set_base_shapes: roles={"
        f"{name!r}: paramz.Axes(fan_in=({growing[-1]},), fan_out={growing[:-1]})}}"
    )
