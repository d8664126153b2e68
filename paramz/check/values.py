"""Copies of what goes into a model, and the size of what comes out of its modules."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

Slices = Sequence[tuple[str, int, Sequence[tuple[int, int]]]]
"""Of an output: the name, the axis and the spans of each slice that is looked at alone."""

NO_SLICES: Mapping[str, Slices] = {}


def cut(output: torch.Tensor, slices: Slices) -> Iterator[tuple[str, torch.Tensor]]:
    """The slices of an output with their names.

    >>> list(cut(torch.arange(6), [("ends", 0, [(0, 1), (4, 6)])]))
    [('ends', tensor([0, 4, 5]))]
    """
    for name, axis, spans in slices:
        parts = [output.narrow(axis, start, stop - start) for start, stop in spans]
        yield name, torch.cat(parts, axis)


def copied(value: Any) -> Any:
    """A copy that a forward pass may change, caches and all, without changing the value.

    What cannot be copied, such as an open file, stands for itself.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, nn.Module | str | int | float | None):
        return value
    if type(value) in (tuple, list):
        return type(value)(copied(part) for part in value)
    if type(value) is dict:
        return {key: copied(part) for key, part in value.items()}
    try:
        return copy.deepcopy(value)
    except (RuntimeError, TypeError):
        return value


def unmasked(logits: torch.Tensor) -> torch.Tensor:
    """Logits with zeros in the place of those that a mask hides from a softmax.

    Masks hold minus infinity or a number far below what logits are, up to the dtype's lowest.

    >>> unmasked(torch.tensor([1.0, -2.0, float("-inf"), -1e9]))
    tensor([ 1., -2.,  0.,  0.])
    """
    logits = logits.detach()
    hidden = logits <= torch.finfo(torch.float16).min
    return logits.masked_fill(hidden, 0.0)


def size(values: torch.Tensor) -> torch.Tensor:
    """The root mean square of all entries (of magnitudes, if complex), still on the device."""
    flat = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    kind = torch.float64 if flat.dtype == torch.float64 else torch.float32
    norm: torch.Tensor = torch.linalg.vector_norm(flat.detach(), dtype=kind).float()
    return norm / math.sqrt(values.numel())


def rms(values: torch.Tensor) -> float:
    """The root mean square of all entries.

    >>> round(rms(torch.tensor([3.0, 4.0])), 4), rms(torch.tensor([3 + 4j]))
    (3.5355, 5.0)
    >>> round(rms(torch.tensor([3.0, 4.0], dtype=torch.float64)), 4)
    3.5355
    """
    return float(size(values))


def of_length_one(values: torch.Tensor) -> bool:
    """Whether all vectors of a tensor, along its last axis, have length one.

    Their entries fall like width^-1/2, and what is made of their products keeps its size.

    >>> of_length_one(torch.eye(3)), of_length_one(torch.ones(3, 3)), of_length_one(torch.ones(3))
    (True, False, False)
    """
    if not values.is_floating_point() or values.ndim < 2 or values.shape[-1] < 2:
        return False
    lengths = torch.linalg.vector_norm(values.detach().float(), dim=-1)
    return bool((lengths - 1).abs().max() < 1e-2)
