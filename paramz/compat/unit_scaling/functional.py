"""Unit-scaled functions with unit_scaling's signatures, on the operations of paramz.nn.

Where the output and all gradients have one and the same factor, it costs one multiplication; in a
linear map or a convolution it costs none, because it is part of the matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from paramz.compat.absent import refuse
from paramz.compat.unit_scaling._activations import dropout, gelu, silu, silu_glu, softmax
from paramz.compat.unit_scaling._linear_maps import conv1d, linear, linear_readout, matmul
from paramz.compat.unit_scaling._losses import cross_entropy, mse_loss
from paramz.compat.unit_scaling._options import not_supported
from paramz.compat.unit_scaling.constraints import apply_constraint
from paramz.nn import functional as U
from paramz.nn.scale import scale

__all__ = [
    "add",
    "conv1d",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "linear_readout",
    "matmul",
    "mse_loss",
    "residual_add",
    "residual_apply",
    "residual_split",
    "rms_norm",
    "scaled_dot_product_attention",
    "silu",
    "silu_glu",
    "softmax",
]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm over the last axes; gradients of gain and bias times 1/sqrt(tokens).

    >>> layer_norm(torch.tensor([1.0, 3.0]), (2,), eps=0.0).tolist()
    [-1.0, 1.0]
    """
    return U.layer_norm(input, normalized_shape, weight, bias, eps)


def rms_norm(
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """RMS norm over the last axes; gradient of the gain times 1/sqrt(tokens).

    >>> rms_norm(torch.tensor([2.0, -2.0]), (2,), eps=0.0).tolist()
    [1.0, -1.0]
    """
    return U.rms_norm(input, normalized_shape, weight, eps)


def add(
    input: Tensor | float,
    other: Tensor | float,
    constraint: str | None = "to_output_scale",
    alpha: int = 1,
    out: Tensor | None = None,
) -> Tensor:
    """A sum times 1/sqrt(2); adding a number, or a tensor of one entry, leaves the scale alone.

    Raises:
        ValueError: ``alpha`` is given.

    >>> round(add(torch.ones(1, 2), torch.ones(1, 2))[0, 0].item(), 4)
    1.4142
    """
    not_supported("add", alpha=(alpha, 1))
    if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        return torch.add(input, other, out=out)
    entries = torch.broadcast_shapes(input.shape, other.shape).numel()  # type: ignore[no-untyped-call]
    output, grad_input, grad_other = apply_constraint(
        constraint,
        1.0 if 1 in (input.numel(), other.numel()) else 2**-0.5,
        (entries // input.numel()) ** -0.5,
        (entries // other.numel()) ** -0.5,
    )
    left, right = scale(input, backward=grad_input), scale(other, backward=grad_other)
    return scale(torch.add(left, right, out=out), forward=output)


def residual_split(input: Tensor, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """Views of a tensor for the branch and for the skip connection, in this order.

    Args:
        input: what the branch and its skip connection start from.
        tau: scale of the branch relative to the skip connection.

    >>> [x.tolist() for x in residual_split(torch.ones(1))]
    [[1.0], [1.0]]
    """
    return U.residual_split(input, tau)


def residual_add(residual: Tensor, skip: Tensor, tau: float = 1.0) -> Tensor:
    """``(tau residual + skip) / sqrt(1 + tau^2)``, after `residual_split`.

    >>> residual_add(torch.zeros(1), torch.ones(1), tau=0.75).item()
    0.800000011920929
    """
    return U.residual_add(residual, skip, tau)


def residual_apply(fn: Callable[[Tensor], Tensor], input: Tensor, tau: float = 1.0) -> Tensor:
    """`residual_split`, a function on the branch, and `residual_add`.

    >>> round(residual_apply(torch.relu, torch.ones(1)).item(), 4)
    1.4142
    """
    branch, skip = U.residual_split(input, tau)
    return U.residual_add(fn(branch), skip, tau)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table; their gradients times sqrt(rows of the table / rows looked up).

    Raises:
        ValueError: ``scale_grad_by_freq`` or ``sparse`` is asked for.

    >>> embedding(torch.tensor([1]), torch.eye(2)).tolist()
    [[0.0, 1.0]]
    """
    not_supported(
        "embedding", scale_grad_by_freq=(scale_grad_by_freq, False), sparse=(sparse, False)
    )
    return U.embedding(
        input, weight, padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type
    )


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    mult: float = 1.0,
) -> Tensor:
    """Attention with logits ``mult q k / d_head``, scaled; tensors (..., length, d_head).

    The factor of causal attention is used if ``is_causal`` is set, whatever the mask.

    >>> q = torch.zeros(1, 1, 4, 2)
    >>> scaled_dot_product_attention(q, q, torch.ones(1, 1, 4, 2), mult=1e-6)[0, 0, 0].tolist()
    [2.0, 2.0]
    """
    length, d_head = value.shape[-2:]
    y = F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=mult / d_head
    )
    factor = U.attention_scale(length, d_head, causal=is_causal, mult=mult)
    return y * (factor * math.sqrt(1 - dropout_p))


def __getattr__(name: str) -> Any:
    refuse(__name__, name)
