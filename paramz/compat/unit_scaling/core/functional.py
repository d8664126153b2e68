"""What a user's own unit-scaled operations are made of: scaled functions, the tau rule, rms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramz.compat.unit_scaling.constraints import apply_constraint
from paramz.nn.functional import log_interpolate
from paramz.nn.scale import scale

__all__ = [
    "logarithmic_interpolation",
    "rms",
    "scale_elementwise",
    "transformer_residual_scaling_rule",
]

ResidualScalingFn = Callable[[int, int], float]


def scale_elementwise(
    f: Callable[..., Tensor],
    output_scale: float,
    grad_input_scale: float,
    constraint: str | None = "to_output_scale",
) -> Callable[..., Tensor]:
    """An entrywise function with a factor on its value and one on its input's gradient.

    Args:
        f: takes a tensor first.
        output_scale: factor on the value.
        grad_input_scale: factor on the input's gradient.
        constraint: makes one of both; see `constraints`.

    >>> scale_elementwise(torch.relu, 2.0, 1.0)(torch.tensor([-1.0, 1.0])).tolist()
    [0.0, 2.0]
    """
    forward, backward = apply_constraint(constraint, output_scale, grad_input_scale)

    def scaled_f(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if forward == backward:  # the gradient of the product has the factor already
            return f(input, *args, **kwargs) * forward
        return scale(f(scale(input, backward=backward), *args, **kwargs), forward=forward)

    return scaled_f


def logarithmic_interpolation(alpha: float, lower: float, upper: float) -> float:
    """``upper^alpha * lower^(1 - alpha)``.

    >>> round(logarithmic_interpolation(0.5, 0.001, 0.1), 12)
    0.01
    """
    return log_interpolate(alpha, lower, upper)


def rms(
    x: Tensor, dims: tuple[int, ...] | None = None, keepdim: bool = False, eps: float = 0.0
) -> Tensor:
    """``sqrt(mean(x^2) + eps)``, with the mean taken in float32 or, for float64, in that.

    >>> rms(torch.tensor([3.0, 4.0]) * 2**0.5).item()
    5.0
    """
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.pow(2).mean(dims, keepdim=keepdim)
    return (mean + eps).sqrt().to(x.dtype)


def transformer_residual_scaling_rule(
    residual_mult: float = 1.0, residual_attn_ratio: float = 1.0
) -> ResidualScalingFn:
    """The tau rule for branches that alternate between attention and feed-forward.

    Args:
        residual_mult: contribution of all branches relative to the embedding (alpha_res).
        residual_attn_ratio: of attention relative to feed-forward (alpha_res-attn-ratio).

    Returns:
        ``tau(index, layers)`` of branch ``index`` among ``layers``; see `paramz.nn.taus`.

    >>> tau = transformer_residual_scaling_rule()
    >>> [round(tau(i, 8), 4) for i in range(4)]
    [0.5, 0.4472, 0.4082, 0.378]
    """
    ffn = residual_mult * math.sqrt(2 / (1 + residual_attn_ratio**2))
    attention = residual_attn_ratio * ffn

    def tau(index: int, layers: int) -> float:
        before = (index + 1) // 2 * attention**2 + index // 2 * ffn**2
        return (ffn if index % 2 else attention) / math.sqrt(layers / 2 + before)

    return tau
