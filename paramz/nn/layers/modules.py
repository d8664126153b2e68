"""Unit-scaled layers. Weights start at N(0, 1), biases at 0, norm gains at 1.

Each layer carries the factors of its matrix products as data (`Scale`), so whoever composes a block
can fold more into them: `paramz.nn.TransformerDecoder` does, and so does `paramz.nn.unit_scale_`
for a model that was written without any of this.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramz.nn import functional as U
from paramz.nn.convolution import scaled_conv
from paramz.nn.fp8 import Fp8
from paramz.nn.linear import scaled_linear
from paramz.nn.scale import Scale, scale


class Linear(nn.Linear):
    """A linear layer with the factors of ``scale`` in its three matrix products.

    Args:
        in_features, out_features, bias: as for ``nn.Linear``, but without a bias by default.
        scale: the factors; those of a hidden layer (`functional.linear_scale`) if left out.
        fp8: compute in FP8; see `paramz.nn.fp8_`.
        device, dtype: of the parameters.

    >>> layer = Linear(64, 128)
    >>> bool(0.9 < layer(torch.randn(256, 64)).std() < 1.1)
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        scale: Scale | None = None,
        fp8: Fp8 | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.scale = U.linear_scale(in_features, out_features) if scale is None else scale
        self.fp8 = fp8

    def reset_parameters(self) -> None:
        """Weight N(0, 1), bias 0."""
        _unit_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return scaled_linear(x, self.weight, self.bias, scale=self.scale, fp8=self.fp8)


class Readout(Linear):
    """The last layer, with 1/fan_in in front; see `functional.readout_scale`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        scale: Scale | None = None,
        fp8: Fp8 | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        chosen = U.readout_scale(in_features, out_features) if scale is None else scale
        super().__init__(
            in_features, out_features, bias, scale=chosen, fp8=fp8, device=device, dtype=dtype
        )


class Conv1D(nn.Module):
    """`Linear` with its weight stored (in, out), as Hugging Face's Conv1D keeps it."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: Scale | None = None,
        fp8: Fp8 | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.nx, self.nf = in_features, out_features
        self.weight = nn.Parameter(torch.randn(in_features, out_features, device=device))
        self.bias = nn.Parameter(torch.zeros(out_features, device=device))
        self.scale = U.linear_scale(in_features, out_features) if scale is None else scale
        self.fp8 = fp8

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return scaled_linear(x, self.weight.t(), self.bias, scale=self.scale, fp8=self.fp8)


class Conv1d(nn.Conv1d):
    """A convolution over one axis with the factors of ``scale``; see `functional.conv_scale`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode: as for ``nn.Conv1d``, but without a bias by default.
        scale: the factors; those of a hidden layer if left out.
        device, dtype: of the parameters.

    >>> y = Conv1d(16, 32, 5)(torch.randn(8, 16, 64))
    >>> bool(0.9 < y.std() < 1.1)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: Any = "zeros",
        *,
        scale: Scale | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes = (kernel_size, stride, padding, dilation)
        super().__init__(
            in_channels, out_channels, *sizes, groups, bias, padding_mode, device, dtype
        )
        self.scale = _conv_scale(self) if scale is None else scale

    def reset_parameters(self) -> None:
        """Weight N(0, 1), bias 0."""
        _unit_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, length) -> (batch, out_channels, positions)."""
        return _convolve(self, x)


class Conv2d(nn.Conv2d):
    """A convolution over two axes with the factors of ``scale``; see `functional.conv_scale`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode: as for ``nn.Conv2d``, but without a bias by default.
        scale: the factors; those of a hidden layer if left out.
        device, dtype: of the parameters.

    >>> y = Conv2d(16, 32, 3)(torch.randn(4, 16, 16, 16))
    >>> bool(0.9 < y.std() < 1.1)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: Any = "zeros",
        *,
        scale: Scale | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes = (kernel_size, stride, padding, dilation)
        super().__init__(
            in_channels, out_channels, *sizes, groups, bias, padding_mode, device, dtype
        )
        self.scale = _conv_scale(self) if scale is None else scale

    def reset_parameters(self) -> None:
        """Weight N(0, 1), bias 0."""
        _unit_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> (batch, out_channels, *positions)."""
        return _convolve(self, x)


def _conv_scale(conv: Conv1d | Conv2d) -> Scale:
    return U.conv_scale(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.groups
    )


def _convolve(conv: Conv1d | Conv2d, x: Tensor) -> Tensor:
    padding: Any = conv.padding
    if conv.padding_mode != "zeros":
        around = conv._reversed_padding_repeated_twice
        x = F.pad(x, around, mode=conv.padding_mode)
        padding = (0,) * len(conv.kernel_size)
    return scaled_conv(
        x,
        conv.weight,
        conv.bias,
        stride=conv.stride,
        padding=padding,
        dilation=conv.dilation,
        groups=conv.groups,
        scale=conv.scale,
    )


def _unit_init_(layer: Any) -> None:
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Embedding(nn.Embedding):
    """A lookup table; the gradient of its rows has a factor of sqrt(vocabulary / tokens).

    Attributes:
        grad_scale: a further factor, where the gradient that arrives is not of unit scale.
    """

    grad_scale: float = 1.0

    def forward(self, ids: Tensor) -> Tensor:
        """(...) of indices -> (..., embedding_dim)."""
        rows = F.embedding(
            ids,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )
        factor = self.grad_scale * math.sqrt(self.num_embeddings / ids.numel())
        return scale(rows, backward=factor)


class LayerNorm(nn.LayerNorm):
    """Layer norm whose gain and bias have gradients times grad_scale / sqrt(tokens)."""

    grad_scale: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends with ``normalized_shape``."""
        weight, bias = (_scaled_gain(p, x, self.grad_scale) for p in (self.weight, self.bias))
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """RMS norm whose gain has a gradient times grad_scale / sqrt(tokens)."""

    grad_scale: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends with ``normalized_shape``."""
        weight = _scaled_gain(self.weight, x, self.grad_scale)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


def _scaled_gain(gain: Tensor | None, x: Tensor, factor: float) -> Tensor | None:
    if gain is None:
        return None
    return scale(gain, backward=factor * math.sqrt(gain.numel() / x.numel()))


class GELU(nn.GELU):
    """`functional.gelu` as a module."""

    def __init__(self, mult: float = 1.0, approximate: str = "none") -> None:
        super().__init__(approximate)
        self.mult = mult

    def forward(self, x: Tensor) -> Tensor:
        """Entry by entry."""
        return U.gelu(x, self.mult, self.approximate)


class SiLU(nn.Module):
    """`functional.silu` as a module."""

    def __init__(self, mult: float = 1.0) -> None:
        super().__init__()
        self.mult = mult

    def forward(self, x: Tensor) -> Tensor:
        """Entry by entry."""
        return U.silu(x, self.mult)
