"""Unit-scaled operations: unit variance in, unit variance out, forward and backward.

The factors are those of u-muP (Blake et al. 2024, arXiv 2407.17465, table 8 and appendix B), as in
the authors' package unit_scaling 0.3.5; the empirical ones (activations, attention) are their fits.
Unless said otherwise an operation has one factor for its output and its gradients, so that it is
the true gradient of what it computes; inside a residual branch nothing else is right.

Here every operation applies its own factors. `paramz.nn.TransformerDecoder` computes the same with
the factors folded into neighbouring matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from paramz.nn.convolution import conv_fans
from paramz.nn.linear import scaled_linear
from paramz.nn.scale import Scale, scale, transformed

Constraint = Literal["output", "none"]


def log_interpolate(weight: float, low: float, high: float) -> float:
    """``high^weight * low^(1 - weight)``.

    >>> round(log_interpolate(0.5, 0.01, 1.0), 12)
    0.1
    """
    return math.exp(weight * math.log(high) + (1 - weight) * math.log(low))


def linear_scale(fan_in: int, fan_out: float, constraint: Constraint = "output") -> Scale:
    """The factors of a hidden linear map.

    Output 1/sqrt(fan_in), weight gradient 1/sqrt(tokens), and input gradient 1/sqrt(fan_out) for
    constraint ``none``, or as the output's for ``output``. Without the constraint the gradient is
    not the true one, which is right only where a second map makes up for it (the down projection
    for the up projection) or where no skip connection follows.
    """
    out = fan_in**-0.5
    back = out if constraint == "output" else fan_out**-0.5
    return Scale(output=out, grad_input=back, weight_tokens=-0.5)


def conv_scale(
    channels: int,
    fan_out: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    groups: int = 1,
    constraint: Constraint = "output",
) -> Scale:
    """The factors of a convolution: those of `linear_scale`, with its kernel in both fans.

    >>> conv_scale(4, 8, (2, 2), (1, 1)).output
    0.25
    """
    fan_in, back = conv_fans(channels, fan_out, kernel, stride, groups)
    return linear_scale(fan_in, back, constraint)


def readout_scale(fan_in: int, fan_out: float) -> Scale:
    """The factors of the readout: output 1/fan_in, input gradient 1/sqrt(fan_out)."""
    return Scale(output=1 / fan_in, grad_input=fan_out**-0.5, weight_tokens=-0.5)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, constraint: Constraint = "output"
) -> Tensor:
    """A hidden linear map; x (..., fan_in), weight (fan_out, fan_in) with entries of variance 1.

    >>> y = linear(torch.randn(256, 64), torch.randn(128, 64))
    >>> bool(0.9 < y.std() < 1.1)
    True
    """
    fan_out, fan_in = weight.shape
    return scaled_linear(x, weight, bias, scale=linear_scale(fan_in, fan_out, constraint))


def readout(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The last linear map: 1/fan_in in front, so that logits start small; see `readout_scale`."""
    fan_out, fan_in = weight.shape
    return scaled_linear(x, weight, bias, scale=readout_scale(fan_in, fan_out))


def embedding(ids: Tensor, weight: Tensor, *, grad_scale: float = 1.0, **options: Any) -> Tensor:
    """Rows of a table (vocabulary, width); their gradients times sqrt(vocabulary / tokens).

    The factor goes onto the rows that were looked up, not onto the gradient of the whole table.

    Args:
        ids: indices of rows.
        weight: the table.
        grad_scale: a further factor on the gradients.
        **options: of ``F.embedding``.
    """
    factor = grad_scale * math.sqrt(weight.shape[0] / max(ids.numel(), 1))
    return scale(F.embedding(ids, weight, **options), backward=factor)


def activation_scale(kind: str, mult: float = 1.0) -> float:
    """The factor on ``f(mult * x) / mult``, where f is ``relu``, ``gelu`` or ``silu``.

    It is meant for unit normal x, and interpolated between f's linear limit (small mult) and its
    ReLU limit (large mult), which is 1 / std(relu(x)) = sqrt(2 / (1 - 1/pi)).
    """
    relu = math.sqrt(2 / (1 - 1 / math.pi))
    return relu if kind == "relu" else log_interpolate(1 / (1 + 0.25 / mult**2), 2.0, relu)


def glu_scale(mult: float = 1.0) -> float:
    """The factor on ``x * silu(mult * gate) / mult``, for unit normal x and gate."""
    return log_interpolate(1 / (1 + 1 / mult**2), 2.0, math.sqrt(2.0))


def gelu(x: Tensor, mult: float = 1.0, approximate: str = "none") -> Tensor:
    """``gelu(mult x) / mult``, scaled. The multiplier is u-muP's alpha_ffn-act."""
    y = F.gelu(x if mult == 1 else x * mult, approximate=approximate)
    return y * (activation_scale("gelu", mult) / mult)


def silu(x: Tensor, mult: float = 1.0) -> Tensor:
    """``x sigmoid(mult x)``, scaled. The multiplier is u-muP's alpha_ffn-act."""
    y = F.silu(x if mult == 1 else x * mult)
    return y * (activation_scale("silu", mult) / mult)


def relu(x: Tensor) -> Tensor:
    """``relu(x)``, scaled to variance 1."""
    return F.relu(x) * activation_scale("relu")


def silu_glu(x: Tensor, gate: Tensor, mult: float = 1.0) -> Tensor:
    """``x gate sigmoid(mult gate)``, scaled (SwiGLU)."""
    y = x * F.silu(gate if mult == 1 else gate * mult)
    return y * (glu_scale(mult) / mult)


def softmax(x: Tensor, dim: int, mult: float = 1.0) -> Tensor:
    """``softmax(mult x)``, scaled.

    The factor is interpolated between those of flat weights (n) and of one-hot weights (sqrt(n)).
    """
    n = x.shape[dim]
    factor = log_interpolate(1 / (1 + 4 / mult**2), n, math.sqrt(n))
    return F.softmax(x * mult, dim=dim) * factor


def attention_scale(length: int, d_head: int, *, causal: bool, mult: float = 1.0) -> float:
    """The factor on the output of attention whose logits are ``mult q k / d_head``.

    Args:
        length: number of keys.
        d_head: size of a head.
        causal: keys of later positions are masked.
        mult: u-muP's alpha_attn-softmax.
    """
    flat = math.sqrt((math.log(length) if causal and length > 1 else 1) / length)
    return 1 / log_interpolate(1 / (1 + 4 * d_head / mult**2), flat, 1.0)


def attention(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, mult: float = 1.0
) -> Tensor:
    """Dot-product attention (batch, heads, length, d_head), logits times mult/d_head, scaled."""
    length, d_head = value.shape[-2:]
    y = F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=mult / d_head)
    return y * attention_scale(length, d_head, causal=causal, mult=mult)


def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    grad_scale: float = 1.0,
) -> Tensor:
    """Layer norm over the last axes; gradients of gain and bias times grad_scale / sqrt(tokens)."""
    gain, shift = (_with_token_factor(p, x, grad_scale) for p in (weight, bias))
    return F.layer_norm(x, shape, gain, shift, eps)


def rms_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = 1e-5,
    *,
    grad_scale: float = 1.0,
) -> Tensor:
    """RMS norm over the last axes; gradient of the gain times grad_scale / sqrt(tokens)."""
    return F.rms_norm(x, list(shape), _with_token_factor(weight, x, grad_scale), eps)


def _with_token_factor(gain: Tensor | None, x: Tensor, grad_scale: float) -> Tensor | None:
    """A norm's gain or bias whose gradient, a sum over tokens, is divided by sqrt(tokens)."""
    if gain is None:
        return None
    return scale(gain, backward=grad_scale * math.sqrt(gain.numel() / max(x.numel(), 1)))


def branch_weights(tau: float) -> tuple[float, float]:
    """Weights of branch and skip, ``tau / sqrt(1 + tau^2)`` and ``1 / sqrt(1 + tau^2)``.

    >>> branch_weights(0.75)
    (0.6, 0.8)
    """
    norm = math.sqrt(1 + tau**2)
    return tau / norm, 1 / norm


def residual_split(x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Two views of x, for the branch and for the skip connection.

    The branch's weight is applied to its gradient here, and not in `residual_add`, so that
    gradients inside the branch have unit scale. The gradient that arrives at x is the true one.
    """
    branch, skip = branch_weights(tau)
    return scale(x, backward=branch), scale(x, backward=skip)


def residual_add(branch: Tensor, skip: Tensor, tau: float) -> Tensor:
    """The weighted sum of branch and skip (see `branch_weights`), made by `residual_split`."""
    a, b = branch_weights(tau)
    if transformed():
        return scale(branch, a, 1.0) + scale(skip, b, 1.0)
    summed: Tensor = _ResidualAdd.apply(branch, skip, a, b)  # type: ignore[no-untyped-call]
    return summed


class _ResidualAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, branch: Tensor, skip: Tensor, a: float, b: float) -> Tensor:
        return torch.add(skip * b, branch, alpha=a)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        return g, g, None, None


def cross_entropy(
    logits: Tensor, target: Tensor, mult: float = 1.0, *, ignore_index: int = -100
) -> Tensor:
    """Mean cross-entropy of ``mult * logits`` (n, classes), with a gradient of unit variance.

    The gradient at the logits is that of the sum over rows, times classes / sqrt(classes - 1),
    which costs one factor on the scalar loss. The multiplier is u-muP's alpha_loss-softmax.
    """
    rows, classes = logits.shape
    total = F.cross_entropy(
        logits if mult == 1 else logits * mult, target, ignore_index=ignore_index, reduction="sum"
    )
    return scale(total, forward=1 / rows, backward=classes / math.sqrt(classes - 1) / mult)
