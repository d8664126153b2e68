"""Whether a hand-written gradient can be used, or autograd has to differentiate the formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

# What torch.autograd.Function itself asks before it refuses to run under torch.func. If a later
# torch does not have it, the formulas are used everywhere, which are always right.
_in_transform: Callable[[], bool] = getattr(
    torch._C, "_are_functorch_transforms_active", lambda: True
)


def is_eager(v: Tensor) -> bool:
    """Whether a tensor is computed with in plain eager execution.

    Elsewhere the formula has to be used: tensors on the meta device have no values for a kernel, a
    compiler fuses the formula by itself, and transforms of torch.func and forward-mode derivatives
    can differentiate a formula but not a hand-written backward pass.

    >>> is_eager(torch.ones(2))
    True
    >>> torch.func.vmap(lambda v: v + is_eager(v))(torch.zeros(2))
    tensor([0., 0.])
    """
    return not (
        v.is_meta
        or torch.compiler.is_compiling()
        or _in_transform()
        or getattr(forward_ad, "_current_level", -1) >= 0
    )
