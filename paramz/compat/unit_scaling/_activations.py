"""Activations, softmax and dropout with unit_scaling's signatures."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from paramz.compat.unit_scaling._options import not_supported
from paramz.compat.unit_scaling.core.functional import logarithmic_interpolation, scale_elementwise
from paramz.nn import functional as U

_RELU_GRAD = math.sqrt(2.0)


def gelu(
    input: Tensor,
    mult: float = 1.0,
    constraint: str | None = "to_output_scale",
    approximate: str = "none",
) -> Tensor:
    """``gelu(mult x) / mult``, scaled.

    >>> bool(0.9 < gelu(torch.randn(2**14)).std() < 1.1)
    True
    """
    grad_scale = logarithmic_interpolation(1 / (1 + 0.25 / mult**2), 2.0, _RELU_GRAD)
    function = scale_elementwise(_gelu, U.activation_scale("gelu", mult), grad_scale, constraint)
    return function(input, mult, approximate)


def _gelu(x: Tensor, mult: float, approximate: str) -> Tensor:
    if mult == 1:
        return F.gelu(x, approximate=approximate)
    return F.gelu(x * mult, approximate=approximate) / mult


def silu(
    input: Tensor,
    mult: float = 1.0,
    constraint: str | None = "to_output_scale",
    inplace: bool = False,
) -> Tensor:
    """``x sigmoid(mult x)``, scaled.

    Raises:
        ValueError: ``inplace`` is asked for.

    >>> bool(0.9 < silu(torch.randn(2**14)).std() < 1.1)
    True
    """
    not_supported("silu", inplace=(inplace, False))
    function = scale_elementwise(
        _silu, U.activation_scale("silu", mult), U.glu_scale(mult), constraint
    )
    return function(input, mult)


def _silu(x: Tensor, mult: float) -> Tensor:
    return F.silu(x) if mult == 1 else F.silu(x * mult) / mult


def silu_glu(input: Tensor, gate: Tensor, mult: float = 1.0) -> Tensor:
    """``input gate sigmoid(mult gate)``, scaled.

    >>> x = torch.randn(2, 2**14)
    >>> bool(0.9 < silu_glu(x[0], x[1]).std() < 1.1)
    True
    """
    return U.silu_glu(input, gate, mult)


def softmax(
    input: Tensor,
    dim: int,
    dtype: torch.dtype | None = None,
    constraint: str | None = "to_output_scale",
    mult: float = 1.0,
) -> Tensor:
    """``softmax(mult x)``, scaled between its flat (n) and one-hot (sqrt n) limits.

    >>> softmax(torch.zeros(4), dim=0, mult=1e-6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    n, weight = input.shape[dim], 1 / (1 + 4 / mult**2)
    output_scale = logarithmic_interpolation(weight, n, math.sqrt(n))
    grad_scale = logarithmic_interpolation(weight, n / mult, math.sqrt(n / mult))

    def function(x: Tensor) -> Tensor:
        return F.softmax(x if mult == 1 else x * mult, dim=dim, dtype=dtype)

    return scale_elementwise(function, output_scale, grad_scale, constraint)(input)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout times sqrt(1 - p), in training and without.

    Raises:
        ValueError: ``inplace`` is asked for.

    >>> dropout(torch.ones(2), 0.75, training=False).tolist()
    [0.5, 0.5]
    """
    not_supported("dropout", inplace=(inplace, False))
    return F.dropout(input, p, training) * math.sqrt(1 - p)
