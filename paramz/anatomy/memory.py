"""What is known of tensors, by their memory: views share it, and it is changed in place."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import Tensor

State = TypeVar("State")


class Known(Generic[State]):
    """States of stretches of memory.

    Args:
        unknown: the state of memory that nothing was said of.

    >>> import torch
    >>> known, x = Known("new"), torch.zeros(4)
    >>> known.put(x, "seen")
    >>> known.of(x[1:]), known.of(torch.zeros(4))
    ('seen', 'new')
    """

    def __init__(self, unknown: State) -> None:
        self._unknown = unknown
        # With the memory itself, as an address is unique only as long as that lives.
        self._found: dict[int, tuple[State, Any]] = {}

    def put(self, tensor: Tensor, state: State) -> None:
        """Say what is known of a tensor's memory, in place of what was known before."""
        memory = tensor.untyped_storage()
        self._found[memory._cdata] = state, memory

    def of(self, tensor: Tensor) -> State:
        """What is known of a tensor's memory."""
        found = self._found.get(tensor.untyped_storage()._cdata)
        return self._unknown if found is None else found[0]


def are_one(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one stretch of memory; parts of a fused map lie beside each other."""
    return (
        one.untyped_storage()._cdata == other.untyped_storage()._cdata
        and one.storage_offset() == other.storage_offset()
        and one.stride() == other.stride()
    )
