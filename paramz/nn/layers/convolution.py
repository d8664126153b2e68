"""Unit-scaled convolutions over one and over two axes. Weights start at N(0, 1), biases at 0."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from paramz.nn import functional as U
from paramz.nn.convolution import scaled_conv
from paramz.nn.layers.linear import unit_init_
from paramz.nn.scale import Scale


class Convolution(nn.Module):
    """What convolutions over any number of axes share; each comes before torch's in its bases.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode: as for torch's layer, but without a bias by default.
        scale: the factors; those of a hidden layer (`paramz.nn.functional.conv_scale`) if left out.
        device, dtype: of the parameters.
    """

    scale: Scale
    weight: Tensor
    bias: Tensor | None
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: Any
    _reversed_padding_repeated_twice: list[int]

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
        hidden = U.conv_scale(in_channels, out_channels, self.kernel_size, self.stride, groups)
        self.scale = hidden if scale is None else scale

    def reset_parameters(self) -> None:
        """Weight N(0, 1), bias 0."""
        unit_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *size) -> (batch, out_channels, *positions)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0,) * len(self.kernel_size)
        return scaled_conv(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
            scale=self.scale,
        )


class Conv1d(Convolution, nn.Conv1d):
    """A convolution over one axis with the factors of ``scale``; arguments as for `Convolution`.

    >>> import torch
    >>> y = Conv1d(16, 32, 5)(torch.randn(8, 16, 64))
    >>> bool(0.9 < y.std() < 1.1)
    True
    """


class Conv2d(Convolution, nn.Conv2d):
    """A convolution over two axes with the factors of ``scale``; arguments as for `Convolution`.

    >>> import torch
    >>> y = Conv2d(16, 32, 3)(torch.randn(4, 16, 16, 16))
    >>> bool(0.9 < y.std() < 1.1)
    True
    """
