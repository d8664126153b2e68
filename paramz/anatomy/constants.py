"""Tensors of one entry that are numbers in forward code, as in ``x * torch.tensor(width**0.5)``.

Only those count that the run makes. What is there before, as buffers are, has no value on the meta
device, where one of two probes may be, so it has none elsewhere: both are to show the same factors.
The number is read off the call that makes it, and on the meta device what is computed from it is
computed on the CPU as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_MADE = frozenset({"tensor", "scalar_tensor", "as_tensor", "full"})


class Constants:
    """The numbers among the tensors of a run.

    >>> constants, two = Constants(), torch.tensor(2.0)
    >>> constants.value(two), constants.made("tensor", torch.tensor, (2.0,), [], two)
    (None, True)
    >>> constants.value(two)
    2.0
    """

    def __init__(self) -> None:
        # With the tensor, so that its id stays its.
        self._values: dict[int, tuple[Tensor, float | None]] = {}

    def value(self, x: Any) -> float | None:
        """The number that something is, if it is one."""
        if not isinstance(x, Tensor) or x.numel() != 1 or x.is_complex():
            return None
        return self._values[id(x)][1] if id(x) in self._values else None

    def plain(self, args: tuple[Any, ...], *, first: bool) -> tuple[Any, ...]:
        """The arguments of a product or a quotient, with numbers in the place of such tensors.

        Args:
            args: the arguments.
            first: the first one stays as it is: a number over a tensor is no factor.
        """
        values = [None if first and not at else self.value(x) for at, x in enumerate(args)]
        return tuple(x if v is None else v for x, v in zip(args, values, strict=True))

    def made(self, name: str, func: Any, args: Any, tensors: list[Tensor], out: Any) -> bool:
        """Note what an operation put out, and say whether it is a number.

        Args:
            name: of the operation.
            func: the operation.
            args: what it was called with.
            tensors: those among its arguments.
            out: what it put out.
        """
        value = None
        if isinstance(out, Tensor) and out.numel() == 1 and not out.is_complex():
            value = self._computed(name, func, args, tensors, out)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._values[id(x)] = x, value
        return value is not None

    def _computed(
        self, name: str, func: Any, args: Any, tensors: list[Tensor], out: Tensor
    ) -> float | None:
        if not tensors:
            numbers = [x for x in args if isinstance(x, int | float)]
            return float(numbers[-1]) if name in _MADE and numbers else None
        if any(self.value(x) is None for x in tensors):
            return None
        if not out.is_meta:
            return float(out)
        known = [
            torch.tensor(self.value(x), device="cpu") if isinstance(x, Tensor) else x
            for x in args
            if not isinstance(x, torch.device)
        ]
        try:
            return float(func(*known)) if known[1:] or name != "to" else self.value(args[0])
        except Exception:  # whatever it needs that is not among these
            return None
