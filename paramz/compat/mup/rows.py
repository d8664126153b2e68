"""From base shapes to the rows of a plan.

mup reads every tensor as (fan_out, fan_in, ...). Here the module that owns a tensor says which axis
is which, where its type is known (Conv1D of Hugging Face, transposed convolutions, expert stacks);
mup's reading is the rest: of two growing axes the first is fan_out and the second fan_in, and a
tensor with one growing axis has the same rules whichever it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from paramz.anatomy.axes import Axes, axes_of
from paramz.compat.mup.infshape import InfShape
from paramz.plan.roles import role_by_axes
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.theory.families import COLUMNS
from paramz.theory.rules import Role
from paramz.theory.tables import IN, MUP

# TP-V, table 8: the readout's 1/fan_in is a multiplier (MuReadout's own), so every tensor with one
# growing axis has a constant init and the same learning rate: it is MUP with a factor moved.
READOUT_MULTIPLIER = replace(
    MUP.shift(COLUMNS, output=1 / IN),
    name="mup, readout multiplier",
    source="Yang et al. 2022 (TP-V, arXiv 2203.03466) table 8, as in the mup package",
)
RULES = Rulebook(READOUT_MULTIPLIER, folded=False)


@dataclass(frozen=True)
class Use:
    """A module that owns a tensor, by its path, and the tensor's name in it."""

    path: str
    module: nn.Module
    local: str


def find_uses(model: nn.Module) -> dict[str, list[Use]]:
    """First name of every parameter -> the modules that own it, in order."""
    uses: dict[int, list[Use]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module._parameters.items():
            if parameter is not None:
                uses.setdefault(id(parameter), []).append(Use(path, module, local))
    return {name: uses[id(parameter)] for name, parameter in model.named_parameters()}


def rows_of_shapes(
    model: nn.Module, shapes: Mapping[str, InfShape], roles: Mapping[str, Axes] | None = None
) -> tuple[Row, ...]:
    """One row per parameter of a model, of which every `InfShape` is known.

    Raises:
        ValueError: three or more axes of a tensor grow and its module does not tell their meaning,
            or a pattern in ``roles`` matches no parameter.
    """
    uses = find_uses(model)
    for pattern in roles or {}:
        if not any(re.search(pattern, name) for name in uses):
            raise ValueError(
                f"roles[{pattern!r}] matches no parameter; there are {', '.join(uses)}"
            )
    rows = []
    for name, owners in uses.items():
        said = next((a for p, a in (roles or {}).items() if re.search(p, name)), None)
        rows.append(row_of_shape(name, shapes[name], owners, said=said))
    return tuple(rows)


def row_of_shape(
    name: str,
    shape: InfShape,
    uses: Iterable[Use],
    *,
    said: Axes | None = None,
    main: int | None = None,
) -> Row:
    """The row of one tensor.

    Args:
        name: its name.
        shape: its axes.
        uses: the modules that own it.
        said: the meaning of its axes, from the user.
        main: which of its axes is fan_in, where two grow and nobody else tells.

    Raises:
        ValueError: three or more axes grow and nobody says what they mean.
    """
    uses = list(uses)
    growing = tuple(axis for axis, dim in enumerate(shape) if dim.isinf())
    sizes = tuple(int(dim.dim or 0) for dim in shape)
    known = [
        (use, axes)
        for use in uses
        if (axes := said or axes_of(use.module, use.local, sizes)) is not None
    ]
    found: dict[Role, tuple[Axes, str, list[str]]] = {}
    for use, axes in known:
        kind = "roles" if said else type(use.module).__name__
        role, why = role_by_axes(axes, growing, kind)
        found.setdefault(role, (axes, why, []))[2].append(use.path)
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
    full = [f"{use.path}.{use.local}".removeprefix(".") for use in uses] or [name]
    return Row(
        name=name,
        aliases=tuple(full[1:]),
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
        "which fan_out. Say it to set_base_shapes: roles={"
        f"{name!r}: paramz.Axes(fan_in=({growing[-1]},), fan_out={growing[:-1]})}}"
    )
