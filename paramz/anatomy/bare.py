"""Matrices that no layer owns: what is fan_in and what fan_out of them, by how a run uses them."""

from __future__ import annotations

from collections.abc import Mapping

from paramz.anatomy.axes import IN_OUT, Axes
from paramz.anatomy.flow import Flow
from paramz.anatomy.tensors import ModelTensor


def bare_matrices(
    base: Mapping[str, ModelTensor], wider: Mapping[str, tuple[int, ...]]
) -> dict[str, frozenset[int]]:
    """Name -> the axes that grow, of tensors whose modules do not tell what their axes are.

    Args:
        base: the tensors of the base.
        wider: the shapes of those of the wider model.
    """
    found = {}
    for name, tensor in base.items():
        one, other = tensor.shape, wider[name]
        if len(one) == len(other) and all(use.axes is None for use in tensor.uses):
            growing = frozenset(a for a, n in enumerate(one) if n != other[a])
            if growing:
                found[name] = growing
    return found


def axes_in_run(tensor: ModelTensor, growing: frozenset[int], flow: Flow) -> Axes | None:
    """The axes of a bare matrix, if a run shows one way in which it is used, else None.

    A product with data sums over its fan_in. Axes of which each meets data of its own, as those of
    experts, are neither; where these grow the matrix is as many maps, of which no role speaks.
    What is only added to data, or stands beside it as a token, is a table: width is its fan_out.
    What multiplies data entry by entry, and is not summed over then, is a gain of several axes.
    """
    name, rank = tensor.names[0], len(tensor.shape)
    sums, paired = flow.sums(name), flow.pairs(name)
    if flow.looks_up(name):
        return IN_OUT if rank == 2 and not sums else None
    if flow.stands_beside(name) and not sums and len(growing) == 1:
        return Axes(fan_out=tuple(growing))
    if flow.is_gain(name) and not sums and len(growing) == 1:
        return Axes(fan_out=tuple(growing), vector=True)
    if len(sums) != 1 or paired & growing:
        return None
    (fan_in,) = sums
    rest = set(range(rank)) - set(fan_in) - paired
    return Axes(fan_in=fan_in, fan_out=tuple(sorted(rest)))


def reads_out_too(tensor: ModelTensor, growing: frozenset[int], flow: Flow) -> bool:
    """Whether a bare table is what goes into width and also what reads out of it."""
    name = tensor.names[0]
    enters = flow.looks_up(name) or any(not set(axes) & growing for axes in flow.sums(name))
    leaves = any(set(axes) == growing for axes in flow.sums(name))
    return enters and leaves and flow.reads_out(name) is True
