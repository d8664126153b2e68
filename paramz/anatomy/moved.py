"""Where the entries of some parameters are while a model runs, beside in views of them.

A table of places that code repeats along rows and columns, or takes rows of by numbers, is still a
table; and of a product entry by entry it is known which axis is the parameter's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from torch import Tensor

from paramz.anatomy.runs import tensors_in

# Operations whose result holds entries of what goes in as they are, each any number of times.
_MOVES = frozenset(
    """repeat expand_copy view_copy _unsafe_view _reshape_copy cat stack clone _to_copy flip roll
    index index_select embedding gather constant_pad_nd""".split()
)


class Moved:
    """Memory that holds entries of parameters, and products with them.

    >>> import torch
    >>> table = torch.zeros(3, 4)
    >>> moved, longer = Moved({"table": table}, {"table": {1}}), table.repeat(2, 1)
    >>> moved.note("repeat", [table], longer)
    >>> moved.names(longer)
    frozenset({'table'})
    """

    def __init__(self, parameters: Mapping[str, Tensor], growing: Mapping[str, Set[int]]) -> None:
        self._growing = growing
        self._whole = {_memory(p): (name, p) for name, p in parameters.items()}
        self._names = {_memory(p): frozenset([name]) for name, p in parameters.items()}
        self._products: dict[int, tuple[str, Tensor, frozenset[int]]] = {}
        self._kept: list[Tensor] = []  # an address is unique only as long as its memory lives

    def names(self, tensor: Tensor) -> frozenset[str]:
        """The parameters of which a tensor holds entries."""
        return self._names.get(_memory(tensor), frozenset())

    def note(self, operation: str, args: Iterable[Tensor], out: Tensor) -> None:
        """An operation without data: what it makes may hold entries of parameters."""
        names = frozenset[str]().union(*map(self.names, args))
        if names and (operation in _MOVES or "upsample" in operation):
            self._kept.append(out)
            self._names[_memory(out)] = names

    def multiply(self, args: object, out: Tensor) -> None:
        """A product entry by entry of data and something else: remember which axes are whose."""
        for factor in tensors_in(args):
            name, whole = self._whole.get(_memory(factor), ("", factor))
            places = [_place(factor, whole, axis) for axis in self._growing.get(name, ())]
            if name and None not in places:
                ahead = out.ndim - factor.ndim
                axes = frozenset(place + ahead for place in places if place is not None)
                self._products[_memory(out)] = name, out, axes

    def summed(self, tensor: Tensor, axes: object) -> tuple[str, bool] | None:
        """Of a sum over axes of such a product: whose it is, and whether one that grows is gone."""
        name, product, own = self._products.get(_memory(tensor), ("", tensor, frozenset[int]()))
        if not name or product.shape != tensor.shape:
            return None
        gone = [axes] if isinstance(axes, int) else axes
        given = {a % tensor.ndim for a in gone} if isinstance(gone, list | tuple) and gone else None
        return name, given is None or bool(given & own)


def _memory(tensor: Tensor) -> int:
    storage: int = tensor.untyped_storage()._cdata
    return storage


def _place(view: Tensor, whole: Tensor, axis: int) -> int | None:
    """Which axis of a view of a parameter is one of its own."""
    side = whole.shape[axis], whole.stride(axis)
    sides = zip(view.shape, view.stride(), strict=True)
    return next((a for a, each in enumerate(sides) if each == side), None)
