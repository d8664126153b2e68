"""Factors on the value or on the gradient alone."""

from __future__ import annotations

from torch import Tensor

from paramz.nn.scale import scale as _scale

__all__ = ["scale_bwd", "scale_fwd"]


def scale_fwd(input: Tensor, scale: float) -> Tensor:
    """``scale * input``, with the gradient left as it is.

    >>> import torch
    >>> scale_fwd(torch.ones(2), 3.0).tolist()
    [3.0, 3.0]
    """
    return _scale(input, forward=scale)


def scale_bwd(input: Tensor, scale: float) -> Tensor:
    """``input``, with its gradient times ``scale``.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> scale_bwd(x, 3.0).sum().backward()
    >>> x.grad.tolist()
    [3.0, 3.0]
    """
    return _scale(input, backward=scale)
