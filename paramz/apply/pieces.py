"""The pieces of a fused map: its rows that grow, and the slices that stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paramz.plan.row import Row, Slice


def slice_views(tensor: torch.Tensor, part: Slice, in_base: bool = False) -> list[torch.Tensor]:
    """The rows of a slice, as views.

    Args:
        tensor: the whole one.
        part: the slice; none of it if nothing tells where it lies.
        in_base: the tensor is the base's.

    >>> slice_views(torch.arange(5), Slice("inward", 0, 2, ((3, 5, 1),)))
    [tensor([3, 4])]
    """
    return [
        tensor.detach().narrow(part.axis, first if in_base else start, stop - start)
        for start, stop, first in part.spans
    ]


def growing_views(tensor: torch.Tensor, row: Row, in_base: bool = False) -> list[torch.Tensor]:
    """What is left of a tensor without the slices that stay, as views.

    Args:
        tensor: the whole one.
        row: knows its slices.
        in_base: the tensor is the base's.
    """
    spans = sorted(
        (first if in_base else start, stop - start)
        for part in row.slices
        for start, stop, first in part.spans
    )
    if not spans:
        return [tensor.detach()]
    axis = row.slices[0].axis
    views, at = [], 0
    for start, size in (*spans, (tensor.shape[axis], 0)):
        if start > at:
            views.append(tensor.detach().narrow(axis, at, start - at))
        at = start + size
    return views


def growing_rows(tensor: torch.Tensor, row: Row, in_base: bool = False) -> torch.Tensor:
    """The values of a tensor without those of the slices that stay, see `growing_views`."""
    return joined(growing_views(tensor, row, in_base))


def joined(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """The values of some views; of one, that view."""
    return views[0] if len(views) == 1 else torch.cat([view.reshape(-1) for view in views])
