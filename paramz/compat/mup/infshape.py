"""InfDim and InfShape: mup's classes for which axes of a tensor grow with width.

They are what base shape files hold and what ``get_infshapes`` returns. They are not attached to
tensors: paramz keeps the rows of a plan, and these are another way to read and write them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any


@dataclass
class InfDim:
    """One axis: its size at the base (None if it does not grow) and its size.

    >>> InfDim(64, 256).width_mult(), InfDim(None, 10).isinf()
    (4.0, False)
    """

    base_dim: int | None
    dim: int | None

    def isinf(self) -> bool:
        """Whether the axis grows with width."""
        return self.base_dim is not None

    def width_mult(self) -> float:
        """Size / size at the base; 1 for an axis that does not grow.

        Raises:
            ValueError: the axis grows and has no size yet, as in a base shape file.
        """
        if self.base_dim is None:
            return 1
        if self.dim is None:
            raise ValueError(
                f"{self!r} comes from base shapes and has no size: call set_base_shapes first"
            )
        return self.dim / self.base_dim

    def __repr__(self) -> str:
        return f"InfDim({self.base_dim}, {self.dim})"

    def __str__(self) -> str:
        return repr(self) if self.isinf() else f"FinDim({self.dim})"


class InfShape(tuple[InfDim, ...]):
    """The axes of one tensor.

    Attributes:
        main_idx, main: the axis that ``width_mult`` is of: the last that grows, which is fan_in
            where the tensor is stored (fan_out, fan_in); None where nothing grows.

    Raises:
        ValueError: an element is no `InfDim`.

    >>> InfShape([InfDim(64, 256), InfDim(64, 128)]).width_mult()
    2.0
    """

    main_idx: int | None
    main: InfDim | None

    def __init__(self, dims: Iterable[InfDim] = ()) -> None:
        wrong = [dim for dim in self if not isinstance(dim, InfDim)]
        if wrong:
            raise ValueError(f"an InfShape is made of InfDims, not of {wrong[0]!r}")
        growing = [axis for axis, dim in enumerate(self) if dim.isinf()]
        self.main_idx = growing[-1] if growing else None
        self.main = self[growing[-1]] if growing else None

    def ninf(self) -> int:
        """How many axes grow."""
        return sum(dim.isinf() for dim in self)

    def width_mult(self) -> float:
        """The width multiplier of the main axis; 1 where nothing grows."""
        return 1 if self.main is None else self.main.width_mult()

    def fanin_fanout(self) -> tuple[InfDim, InfDim]:
        """Axes 1 and 0, as mup reads every tensor.

        Raises:
            ValueError: the tensor has fewer than two axes.
        """
        if len(self) < 2:
            raise ValueError(f"{self!r} has {len(self)} axes: fan_in and fan_out need two")
        return self[1], self[0]

    def fanin_fanout_mult_ratio(self) -> float:
        """The width multiplier of fan_in over that of fan_out."""
        fan_in, fan_out = self.fanin_fanout()
        return fan_in.width_mult() / fan_out.width_mult()

    def base_shape(self) -> list[int | None]:
        """Sizes at the base, None for axes that do not grow: what a base shape file holds."""
        return [dim.base_dim for dim in self]

    def shape(self) -> list[int | None]:
        """Sizes."""
        return [dim.dim for dim in self]

    def serialize(self) -> dict[str, list[int | None]]:
        """Sizes and base sizes as plain data."""
        return {"base_shape": self.base_shape(), "shape": self.shape()}

    @classmethod
    def deserialize(cls, d: Mapping[str, Sequence[int | None]]) -> InfShape:
        """The inverse of `serialize`."""
        return cls(InfDim(*sizes) for sizes in zip(d["base_shape"], d["shape"], strict=True))

    @classmethod
    def from_base_shape(cls, bsh: Iterable[int | None]) -> InfShape:
        """A shape of which only the base is known.

        >>> InfShape.from_base_shape([64, None])
        InfShape([InfDim(64, None), InfDim(None, None)])
        """
        return cls(InfDim(base, None) for base in bsh)

    def __repr__(self) -> str:
        return f"InfShape([{', '.join(map(repr, self))}])"

    __hash__ = None  # type: ignore[assignment]  # its elements can change


def zip_infshape(
    base_dims: Iterable[Any], dims: Sequence[int], fin_if_same: bool = True
) -> InfShape:
    """The `InfShape` of sizes relative to base sizes.

    Args:
        base_dims: sizes, or `InfDim`s, of which it is known whether they grow.
        dims: the sizes at the target.
        fin_if_same: a size that equals its base size does not grow.

    Raises:
        ValueError: the numbers of axes differ, or a base size is no number.

    >>> zip_infshape([64, 10], [256, 10])
    InfShape([InfDim(64, 256), InfDim(None, 10)])
    """
    base_dims = list(base_dims)
    if len(base_dims) != len(dims):
        raise ValueError(
            f"the base shape {base_dims} has {len(base_dims)} axes and {tuple(dims)} has "
            f"{len(dims)}: they cannot belong to the same tensor"
        )
    found = []
    for base, dim in zip(base_dims, dims, strict=True):
        if isinstance(base, InfDim):
            one = copy(base)
            one.dim = dim
        elif isinstance(base, int):
            one = InfDim(None if base == dim and fin_if_same else base, dim)
        else:
            raise ValueError(f"a base size is a number or an InfDim, not {base!r}")
        found.append(one)
    return InfShape(found)
