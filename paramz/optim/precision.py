"""Factors are measured and inverted in full precision, whatever a training loop casts to."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on the device of a tensor.

    Sums of outer products in bfloat16 are too coarse to be inverted, and torch inverts none.

    Args:
        like: a tensor on the device in question.

    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(x):
    ...     (x @ x).dtype
    torch.float32
    """
    return torch.autocast(like.device.type, enabled=False)
