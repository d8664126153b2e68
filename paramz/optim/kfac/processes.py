"""Means of what K-FAC measured, over all processes of a distributed run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist

from paramz.optim.kfac.layers import PreconditionedLayer
from paramz.optim.kfac.measurement import Measurement, Sums, empty_sums


def rank() -> int:
    """The number of this process; 0 if there is only one.

    >>> rank()
    0
    """
    return dist.get_rank() if _several() else 0


def averages(found: Measurement) -> Iterator[tuple[PreconditionedLayer, Sums]]:
    """The means of A and B for each layer that was measured, over all processes.

    Every process yields the same layers in the same order.
    """
    if not _several():
        for layer, sums in found.sums.items():
            a = None if sums.a is None else sums.a / sums.rows
            yield layer, Sums(a, 1, None if sums.b is None else sums.b / found.terms)
        return
    for layer in found.layers:
        # A layer may have seen data on other processes only, as experts do.
        sums = found.sums.get(layer, empty_sums(layer, found.estimate))
        counts = torch.tensor([sums.rows, found.terms], dtype=torch.float64)
        counts = counts.to(layer.tensors[0].device)
        dist.all_reduce(counts)
        rows, total = counts.tolist()
        if not rows:
            continue
        for factor, over in ((sums.a, rows), (sums.b, total)):
            if factor is not None:
                dist.all_reduce(factor)
                factor /= over
        yield layer, sums


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
