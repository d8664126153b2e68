"""Matrix products, linear maps and convolutions with unit_scaling's signatures."""

from __future__ import annotations

import torch
from torch import Tensor

from paramz.compat.unit_scaling.constraints import apply_constraint
from paramz.nn.convolution import conv_fans, scaled_conv
from paramz.nn.linear import scaled_linear
from paramz.nn.scale import Scale, scale


def matmul(left: Tensor, right: Tensor, constraint: str | None = "to_output_scale") -> Tensor:
    """A matrix product (..., m, k) (..., k, n), with factors 1/sqrt of k, n and m.

    >>> matmul(torch.ones(2, 4), torch.ones(4, 3))[0].tolist()
    [2.0, 2.0, 2.0]
    """
    rows, inner, columns = *left.shape[-2:], right.shape[-1]
    output, grad_left, grad_right = apply_constraint(
        constraint, inner**-0.5, columns**-0.5, rows**-0.5
    )
    if output == grad_left == grad_right:
        return torch.matmul(left, right) * output
    product = torch.matmul(scale(left, backward=grad_left), scale(right, backward=grad_right))
    return scale(product, forward=output)


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    constraint: str | None = "to_output_scale",
    scale_power: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """A linear map with its factors inside the matrix products; weight (fan_out, fan_in).

    Args:
        input: (..., fan_in).
        weight: entries of variance 1.
        bias: (fan_out,) or None.
        constraint: between the factors of the output and of the input's gradient.
        scale_power: powers of 1/fan_in, 1/fan_out and 1/tokens for the output, the input's gradient
            and those of weight and bias.

    >>> linear(torch.ones(2, 4), torch.ones(3, 4), None)[0].tolist()
    [2.0, 2.0, 2.0]
    """
    fan_out, fan_in = weight.shape
    factors = linear_factors(fan_in, fan_out, constraint, scale_power)
    return scaled_linear(input, weight, bias, scale=factors)


def linear_factors(
    fan_in: int,
    fan_out: float,
    constraint: str | None = "to_output_scale",
    scale_power: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> Scale:
    """The factors of `linear` as `paramz.nn` keeps them.

    >>> linear_factors(4, 16, None).grad_input
    0.25
    """
    output, grad_input = apply_constraint(
        constraint, fan_in ** -scale_power[0], fan_out ** -scale_power[1]
    )
    return Scale(output=output, grad_input=grad_input, weight_tokens=-scale_power[2])


def linear_readout(
    input: Tensor, weight: Tensor, bias: Tensor | None, constraint: str | None = None
) -> Tensor:
    """The last linear map, with 1/fan_in in front.

    >>> linear_readout(torch.ones(2, 4), torch.ones(3, 4), None)[0].tolist()
    [1.0, 1.0, 1.0]
    """
    return linear(input, weight, bias, constraint, (1.0, 0.5, 0.5))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    constraint: str | None = "to_output_scale",
    scale_power: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """A convolution over one axis; weight (fan_out, fan_in / groups, kernel).

    Args:
        input: (batch, channels, length), or without the batch.
        weight: entries of variance 1.
        bias: (fan_out,) or None.
        stride: as for ``F.conv1d``, like the next three.
        padding: on either side.
        dilation: of the kernel.
        groups: of channels.
        constraint: as for `linear`.
        scale_power: as for `linear`, with the kernel in both fans.

    >>> conv1d(torch.ones(1, 4, 2), torch.ones(3, 4, 1)).unique().tolist()
    [2.0]
    """
    fan_out, channels, kernel = weight.shape
    factors = conv_factors(
        channels * groups, fan_out, kernel, stride, groups, constraint, scale_power
    )
    return scaled_conv(
        input,
        weight,
        bias,
        stride=(stride,),
        padding=(padding,),
        dilation=(dilation,),
        groups=groups,
        scale=factors,
    )


def conv_factors(
    channels: int,
    fan_out: int,
    kernel: int,
    stride: int,
    groups: int,
    constraint: str | None = "to_output_scale",
    scale_power: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> Scale:
    """The factors of `conv1d` as `paramz.nn` keeps them.

    >>> conv_factors(4, 16, 4, 1, 1).output
    0.25
    """
    fan_in, back = conv_fans(channels, fan_out, (kernel,), (stride,), groups)
    return linear_factors(fan_in, back, constraint, scale_power)
