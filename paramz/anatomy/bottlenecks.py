"""Maps from width into a fixed size and back: which are the model's readouts, which are inside it.

Both have the same shapes. What tells them apart is where their output goes, so the model runs once
(`paramz.anatomy.flow`). Where it cannot, the order and nesting of its modules has to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.axes import IN_OUT
from paramz.anatomy.flow import Flow, follow
from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.paths import join, pattern, split
from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import ModelTensor, listed


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matrix stands that grows on one side only.

    Attributes:
        inside: its output feeds further matrices that grow, not the model's output; None where
            nothing tells.
        fed: its input was made by a matrix that grows.
        why: how that was found.
    """

    inside: bool | None = None
    fed: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A tensor that grows: on which sides, their sizes, and whether rows of it are looked up."""

    name: str
    grows_in: bool
    grows_out: bool
    fan_in: int
    fan_out: int
    table: bool

    @property
    def narrows(self) -> bool:
        return self.grows_in and not self.grows_out


def find_places(
    probes: Probes,
    base: Mapping[str, ModelTensor],
    wider: Mapping[str, ModelTensor],
    example: Any = None,
) -> dict[str, Place]:
    """Name in the base -> its place, for matrices that grow on one side only.

    Args:
        probes: base and wider model; one of them runs once, if shapes leave a doubt.
        base: the tensors of the base.
        wider: those of the wider model.
        example: what to call the model with.

    >>> linears = lambda *n: nn.Sequential(*map(nn.Linear, n, n[1:]))
    >>> net = lambda m: linears(2, m, 3, m, 1)
    >>> from paramz.anatomy.tensors import read_tensors
    >>> one, two = net(8), net(16)
    >>> found = find_places(Probes(one, two), read_tensors(one), read_tensors(two))
    >>> [(name, place.inside, place.fed) for name, place in found.items()]
    [('0.weight', False, False), ('1.weight', True, True), ('2.weight', False, True),
     ('3.weight', False, True)]
    """
    grown = [m for name, t in base.items() if (m := _matrix(t, wider[name].shape)) is not None]
    narrow = [matrix for matrix in grown if matrix.narrows]
    if not narrow or (len(narrow) == 1 and narrow[0] is grown[-1]):
        return {}
    flow = _run(probes, [matrix.name for matrix in grown], example)
    return {
        matrix.name: _place(matrix, grown, flow, probes.base)
        for matrix in grown
        if matrix.grows_in != matrix.grows_out
    }


def _matrix(tensor: ModelTensor, wider: tuple[int, ...]) -> _Matrix | None:
    if len(tensor.shape) != len(wider):
        return None  # which paramz.plan.roles refuses
    growing = {a for a, n in enumerate(tensor.shape) if n != wider[a]}
    axes = next((use.axes for use in tensor.uses if use.axes is not None), None)
    if not growing or axes is None or axes.vector:
        return None
    fan_in, fan_out = (
        max((tensor.shape[a] for a in side), default=1) for side in (axes.fan_in, axes.fan_out)
    )
    grows_in, grows_out = (bool(growing & set(side)) for side in (axes.fan_in, axes.fan_out))
    first = tensor.uses[0]
    table = first.axes == IN_OUT and first.kind != names.TRANSPOSED_LINEAR
    return _Matrix(tensor.names[0], grows_in, grows_out, fan_in, fan_out, table)


def _run(probes: Probes, matrices: list[str], example: Any) -> Flow:
    """What a run shows; nothing if neither probe runs with any inputs that can be thought of."""
    for model in (probes.wider, probes.base):
        for inputs in possible_inputs(model, example):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    return follow(model, matrices, inputs)
            except Exception:  # any model's own code, on inputs or a device that it may not like
                continue
    return Flow()


def _place(matrix: _Matrix, grown: Sequence[_Matrix], flow: Flow, model: nn.Module) -> Place:
    fed = False if matrix.table else flow.is_fed(matrix.name)
    if not matrix.narrows:
        before = grown[: grown.index(matrix)]
        paired = any(
            other.narrows and other.fan_out == matrix.fan_in and _same_part(other, matrix)
            for other in before
        )
        return Place(False, paired if fed is None else fed)
    reads_out = flow.reads_out(matrix.name)
    if reads_out is not None:
        return Place(not reads_out, True, "run")
    after = grown[grown.index(matrix) + 1 :]
    if not after:
        return Place(False, True, "last")
    return Place(_by_structure(matrix, after, model), True, "structure")


def _by_structure(matrix: _Matrix, after: Sequence[_Matrix], model: nn.Module) -> bool | None:
    """Whether what follows a map in the order and nesting of modules takes its output."""
    prefix = getattr(model, "base_model_prefix", None)
    if prefix and prefix in model._modules and matrix.name.startswith(f"{prefix}."):
        return True  # of a Hugging Face model, all but its heads
    if any(other.fan_in == matrix.fan_out and not other.grows_in for other in after):
        return True
    path, _ = split(matrix.name)
    while path:
        path, _ = split(path)
        above = model.get_submodule(path)
        if isinstance(above, nn.ModuleList):
            break  # its modules may be a chain, or heads side by side
        inner = [other for other in after if other.name.startswith(join(path, ""))]
        # The root's parts may be heads side by side, too, but for those of a Sequential.
        if (path or isinstance(above, nn.Sequential)) and any(m.grows_out for m in inner):
            return True
    return None


def _same_part(one: _Matrix, other: _Matrix) -> bool:
    """Whether the outermost modules of two tensors are one, or both are children of the root."""
    paths = [split(each.name)[0] for each in (one, other)]
    first, second = (path.partition(".")[0] for path in paths)
    return first == second or not any("." in path for path in paths)


def notes_on_places(places: Mapping[str, Place]) -> list[str]:
    """What a reader of the plan should know of places that no run has shown, one sentence each."""
    found: dict[bool, dict[str, str]] = {}
    for name, place in places.items():
        if place.why == "structure":
            found.setdefault(bool(place.inside), {})[pattern(name)] = name
    return [_note(inside, alike) for inside, alike in found.items()]


def _note(inside: bool, alike: Mapping[str, str]) -> str:
    taken = "maps inside the network" if inside else "readouts"
    regex, role = f"{next(iter(alike))}$", "output" if inside else "inward"
    return (
        f"{listed(list(alike.values()), 4)}: read as {taken} by the order of the modules, because "
        "the model could not be run to see where their output goes. Give example=, a batch to run "
        f"it with, or say it: roles={{{regex!r}: {role!r}}}"
    )
