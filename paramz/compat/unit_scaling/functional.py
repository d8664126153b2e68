"""Unit-scaled functions with unit_scaling's signatures, on the operations of paramz.nn.

Where one factor serves the output and all gradients it is one multiplication, or none: that of a
linear map or a convolution is part of its matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from paramz.compat.unit_scaling._absent import refuse
from paramz.compat.unit_scaling.constraints import apply_constraint
from paramz.compat.unit_scaling.core.functional import logarithmic_interpolation, scale_elementwise
from paramz.nn import functional as U
from paramz.nn.convolution import conv_fans, scaled_conv
from paramz.nn.linear import scaled_linear
from paramz.nn.scale import Scale, scale

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
    rows = F.embedding(input, weight, padding_idx, max_norm, norm_type)
    return scale(rows, backward=math.sqrt(weight.shape[0] / input.numel()))


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


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    mult: float = 1.0,
) -> Tensor:
    """Cross-entropy of ``mult * input``, (n, classes) or (classes,), with a unit gradient.

    The mean is over all rows, ignored ones included; the gradient is that of the sum, times
    classes / sqrt(classes - 1), and without mult.

    Raises:
        ValueError: an option that has no unit-scaled form, or a shape of more axes.

    >>> round(cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 2])).item(), 4)
    1.3863
    """
    not_supported(
        "cross_entropy",
        weight=(weight, None),
        size_average=(size_average, None),
        reduce=(reduce, None),
        label_smoothing=(label_smoothing, 0.0),
    )
    if input.dim() not in (1, 2):
        raise ValueError(
            f"cross_entropy input shape is {tuple(input.shape)}, but should be either "
            "(vocab_size,) or (batch_size, vocab_size): flatten the leading axes"
        )
    classes = input.shape[-1]
    logits = input if mult == 1 else input * mult
    total = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum")
    backward = classes / math.sqrt(classes - 1) / mult
    return scale(total, _mean_factor(reduction, input.numel() // classes), backward)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean squared error, with the sum's gradients times 1/sqrt(8).

    Raises:
        ValueError: the shapes differ, or an option that has no unit-scaled form.

    >>> mse_loss(torch.zeros(2), torch.ones(2)).item()
    1.0
    """
    not_supported("mse_loss", size_average=(size_average, None), reduce=(reduce, None))
    if input.shape != target.shape:
        raise ValueError(
            "U.mse_loss requires input.shape == target.shape, actual input.shape="
            f"{tuple(input.shape)}, target.shape={tuple(target.shape)}"
        )
    total = F.mse_loss(input, target, reduction="sum")
    return scale(total, _mean_factor(reduction, input.numel()), 8**-0.5)


def _mean_factor(reduction: str, count: int) -> float:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction={reduction!r} has no unit-scaled form: use 'mean' or 'sum'")
    return 1 / count if reduction == "mean" else 1.0


def not_supported(function: str, **options: tuple[Any, Any]) -> None:
    """Refuse options (given, default) that have no unit-scaled form.

    Raises:
        ValueError: one is not its default.

    >>> not_supported("silu", inplace=(False, False))
    """
    for name, (given, default) in options.items():
        if given is not default and (isinstance(given, Tensor) or given != default):
            raise ValueError(
                f"Support for the '{name}' argument has not been implemented: {function} has no "
                f"unit-scaled form with it. Leave it at {default!r}"
            )


def __getattr__(name: str) -> Any:
    refuse(__name__, name)
