"""Maps from width into a fixed size and back: which are the model's readouts, which are inside it.

Both have the same shapes. What tells them apart is where their output goes, so the model runs once
(`paramz.anatomy.flow`). Where it cannot, the order and nesting of its modules has to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.axes import IN_OUT, Axes
from paramz.anatomy.bare import axes_in_run, bare_matrices, reads_out_too
from paramz.anatomy.dotted import find_dotted
from paramz.anatomy.flow import Flow
from paramz.anatomy.follower import follow
from paramz.anatomy.inputs import of_hugging_face, possible_inputs
from paramz.anatomy.paths import join, split
from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import ModelTensor

# Blocks of one kind that run first: one feeds the other, which shows as much as a hundred do.
_KEPT_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matrix stands that grows on one side only.

    Attributes:
        inside: its output feeds further matrices that grow, not the model's output; None where
            nothing tells.
        fed: its input was made by a matrix that grows.
        why: how that was found: by a ``run``; by the ``structure`` of modules, which may be wrong,
            by their ``order``, or because it is the ``last``, where none went through.
        latent: a norm takes what it puts out, or a slice of that; or what goes in is frozen.
        widens: it goes from a fixed size into width.
        axes: what its axes are in forward code, where a run shows it and its layer says otherwise.
        reads_out: a table or first layer that forward code also multiplies by, the other way round,
            to make the model's output.
        enters: a readout by whose weight forward code also goes into width: the model's input
            chooses rows of it, or it is multiplied by the other way round.
    """

    inside: bool | None = None
    fed: bool = False
    why: str = ""
    latent: bool = False
    widens: bool = False
    axes: Axes | None = None
    reads_out: bool = False
    enters: bool = False


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A tensor that grows: its axes, sizes of its sides, and whether rows of it are looked up."""

    name: str
    axes: Axes
    growing: frozenset[int]
    fan_in: int
    fan_out: int
    table: bool
    shared: bool

    @property
    def grows_in(self) -> bool:
        return bool(self.growing & set(self.axes.fan_in))

    @property
    def grows_out(self) -> bool:
        return bool(self.growing & set(self.axes.fan_out))

    @property
    def narrows(self) -> bool:
        return self.grows_in and not self.grows_out


def find_places(
    probes: Probes,
    base: Mapping[str, ModelTensor],
    wider: Mapping[str, tuple[int, ...]],
    example: Any = None,
) -> dict[str, Place]:
    """Name in the base -> its place, for matrices that grow on one side only, and for bare ones.

    Args:
        probes: base and wider model; one of them runs once, if shapes leave a doubt.
        base: the tensors of the base.
        wider: the shapes of those of the wider model.
        example: what to call the model with.

    >>> linears = lambda *n: nn.Sequential(*map(nn.Linear, n, n[1:]))
    >>> net = lambda m: linears(2, m, 3, m, 1)
    >>> from paramz.anatomy.tensors import read_shapes, read_tensors
    >>> one, two = net(8), net(16)
    >>> found = find_places(Probes(one, two), read_tensors(one), read_shapes(two))
    >>> [(name, place.inside, place.fed) for name, place in found.items()]
    [('0.weight', False, False), ('1.weight', True, True), ('2.weight', False, True),
     ('3.weight', False, True)]
    """
    grown = [m for name, t in base.items() if (m := _matrix(t, wider[name])) is not None]
    narrow = [matrix for matrix in grown if matrix.narrows]
    dotted = find_dotted(probes.wider, base, wider, example)
    bare = bare_matrices(base, wider) | {n: frozenset(axes.fan_in) for n, axes in dotted.items()}
    if not bare and len(narrow) == 1 and narrow[0] is grown[-1]:
        return _last(narrow[0], probes, grown, example)
    if not bare and not narrow and any(matrix.table and matrix.shared for matrix in grown):
        return {}  # embedding and readout are one tensor
    flow = _run(probes, {matrix.name: matrix.growing for matrix in grown} | bare, example)
    shown = {m.name: axes for m in grown if (axes := _shown(m, flow)) is not None}
    grown = [replace(m, axes=shown[m.name]) if m.name in shown else m for m in grown]
    seen = {n: axes for n, g in bare.items() if (axes := axes_in_run(base[n], g, flow)) is not None}
    seen = {**dotted, **seen}
    shown |= seen
    matrices = {name: axes for name, axes in seen.items() if not axes.vector}
    grown += [_of_axes(base[name], bare[name], axes) for name, axes in matrices.items()]
    twice = [name for name, g in bare.items() if reads_out_too(base[name], g, flow)]
    return {
        **{name: Place(axes=axes) for name, axes in seen.items()},
        **{name: Place(reads_out=True) for name in twice},
        **_one_sided(grown, shown, flow, probes.base),
    }


def _one_sided(
    grown: Sequence[_Matrix], shown: Mapping[str, Axes], flow: Flow, model: nn.Module
) -> dict[str, Place]:
    return {
        matrix.name: replace(
            _place(matrix, number, grown, flow, model),
            axes=shown.get(matrix.name),
            reads_out=matrix.grows_out and _multiplied(matrix, flow),
            enters=matrix.narrows and _enters(matrix, flow),
        )
        for number, matrix in enumerate(grown)
        if matrix.grows_in != matrix.grows_out
    }


def _matrix(tensor: ModelTensor, wider: tuple[int, ...]) -> _Matrix | None:
    if len(tensor.shape) != len(wider):
        return None  # which paramz.plan.roles refuses
    growing = frozenset(a for a, n in enumerate(tensor.shape) if n != wider[a])
    known = (use.axes_where(growing) for use in tensor.uses)
    axes = next((each for each in known if each is not None), None)
    if not growing or axes is None or axes.vector:
        return None
    return _of_axes(tensor, growing, axes)


def _of_axes(tensor: ModelTensor, growing: frozenset[int], axes: Axes) -> _Matrix:
    fan_in, fan_out = (
        max((tensor.shape[a] for a in side), default=1) for side in (axes.fan_in, axes.fan_out)
    )
    first = tensor.uses[0]
    stores = first.transposes is None and first.kind != names.TRANSPOSED_LINEAR
    table = first.axes == IN_OUT and stores
    shared = len(tensor.uses) > 1
    return _Matrix(tensor.names[0], axes, growing, fan_in, fan_out, table, shared)


def _shown(matrix: _Matrix, flow: Flow) -> Axes | None:
    """The axes of a layer's matrix that forward code only ever uses the other way round."""
    sums = flow.sums(matrix.name)
    looked_up = flow.looks_up(matrix.name) and not sums  # as F.embedding(ids, self.tokens.weight)
    if matrix.table or not (looked_up or sums == {matrix.axes.fan_out}):
        return None
    return Axes(fan_in=matrix.axes.fan_out, fan_out=matrix.axes.fan_in)


def _multiplied(matrix: _Matrix, flow: Flow) -> bool:
    """Whether what goes into width also makes the model's output, summed over width."""
    sums = flow.sums(matrix.name)
    both = matrix.table or matrix.axes.fan_in in sums
    return flow.reads_out(matrix.name) is True and both and matrix.axes.fan_out in sums


def _last(
    matrix: _Matrix, probes: Probes, grown: Sequence[_Matrix], example: Any
) -> dict[str, Place]:
    """A place for the one readout, where its weight is used for more than its name tells.

    Hugging Face's models tie their weights by name, so they are spared the run.
    """
    if of_hugging_face(probes.wider):
        return {}
    cheap = replace(probes, build=None)  # a doubt as rare as this is worth no real base
    flow = _run(cheap, {each.name: each.growing for each in grown}, example)
    if _enters(matrix, flow):
        return {matrix.name: Place(enters=True)}
    if flow.reads_out(matrix.name) is False:  # the model puts out what is as large as width
        return _one_sided(grown, {}, flow, probes.base)
    return {}


def _enters(matrix: _Matrix, flow: Flow) -> bool:
    """Whether a readout's weight also makes what goes into width."""
    sums = flow.sums(matrix.name)
    both = matrix.axes.fan_in in sums and matrix.axes.fan_out in sums
    return flow.reads_out(matrix.name) is True and (both or matrix.name in flow.looked_up)


def _run(probes: Probes, matrices: Mapping[str, Set[int]], example: Any) -> Flow:
    """What a run shows; nothing if neither probe runs with any inputs that can be thought of."""
    for model in _runnable(probes):
        for inputs in possible_inputs(model, example):
            found = None
            for kept in (_KEPT_BLOCKS, None):  # code that counts its blocks needs all of them
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # of code that meets a guess
                        found = follow(model, matrices, inputs, kept)
                except Exception:  # any model's own code, on inputs that it may not like
                    continue
                if found.tells_of(matrices):
                    break
            if found is not None:
                return found
    return Flow()


def _runnable(probes: Probes) -> Iterator[nn.Module]:
    """What may run, the cheapest first: some code needs values, so that a real base is built."""
    yield probes.wider
    yield probes.base
    if probes.build is not None:
        yield probes.build()


def _place(
    matrix: _Matrix, number: int, grown: Sequence[_Matrix], flow: Flow, model: nn.Module
) -> Place:
    fed = False if matrix.table else flow.is_fed(matrix.name)
    if not matrix.narrows:
        if fed is not None or matrix.table:
            return Place(False, bool(fed), widens=True)
        before = grown[:number]
        paired = any(
            other.narrows and other.fan_out == matrix.fan_in and _same_part(other, matrix)
            for other in before
        )
        doubtful = not paired and any(other.narrows for other in before)
        return Place(False, paired, "structure" if doubtful else "order", widens=True)
    reads_out = flow.reads_out(matrix.name)
    frozen = any(part in names.FROZEN_INPUT for part in matrix.name.split("."))
    if reads_out is not None:
        # A latent that is put out as well, or a cache of keys, keeps its size for what follows.
        inside = not reads_out or flow.goes_on(matrix.name) is True
        return Place(inside, True, "run", frozen or bool(flow.is_normed(matrix.name)))
    after = grown[number + 1 :]
    if not after:
        return Place(False, True, "last")
    return Place(_by_structure(matrix, after, model), True, "structure", frozen)


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
