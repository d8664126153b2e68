"""Convolutions with their factors on the weight, so the forward pass has no more work per entry."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from paramz.nn.scale import PLAIN, Scale
from paramz.nn.scale import scale as scaled

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


def scaled_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int = 1,
    scale: Scale = PLAIN,
) -> Tensor:
    """A convolution over 1, 2 or 3 axes with the factors of a `Scale`; positions are its tokens.

    Args:
        x: (batch, channels, *size), or without the batch.
        weight: (fan_out, channels / groups, *kernel).
        bias: (fan_out,) or None.
        stride: one number per axis of the kernel.
        padding: likewise, or ``"same"`` or ``"valid"``.
        dilation: one number per axis of the kernel.
        groups: number of groups; an output sees the channels of its own group.
        scale: the factors; see `Scale` for the formulas.

    >>> import torch
    >>> x, w = torch.ones(1, 4, 3, 3), torch.ones(2, 4, 1, 1)
    >>> one = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    >>> scaled_conv(x, w, scale=Scale(output=0.5), **one).unique().tolist()
    [2.0]
    """
    axes = weight.dim() - 2
    size = output_size(x.shape[-axes:], weight.shape[2:], stride, padding, dilation)
    batch = x.shape[0] if x.dim() == axes + 2 else 1
    s = scale.at(batch * math.prod(size))
    forward = s.input * s.output
    x = scaled(x, 1.0, s.grad_input * s.grad_output / forward)
    weight = scaled(weight, forward, s.grad_weight * s.grad_output * s.input)
    if bias is not None:
        bias = scaled(bias, s.output, s.grad_weight * s.grad_output)
    convolve = _CONVOLUTIONS[axes - 1]
    return convolve(x, weight, bias, stride, padding, dilation, groups)


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """The number of positions along each axis.

    >>> output_size((8, 8), (3, 3), (2, 2), (1, 1), (1, 1))
    (4, 4)
    """
    if padding == "same":
        return tuple(size)
    around = [0] * len(size) if isinstance(padding, str) else padding
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, around, dilation, strict=True)
    )


def conv_fans(
    channels: int, fan_out: int, kernel: Sequence[int], stride: Sequence[int], groups: int = 1
) -> tuple[int, float]:
    """Over how many entries an output sums, and over how many (on average) an input's gradient.

    Args:
        channels: number of channels of the input.
        fan_out: number of channels of the output.
        kernel: one number per axis.
        stride: likewise.
        groups: number of groups; an output sees the channels of its own group.

    >>> conv_fans(16, 32, (3, 3), (2, 2))
    (144, 72.0)
    """
    area = math.prod(kernel)
    return channels // groups * area, fan_out * area / (math.prod(stride) * groups)
