"""The linear map with its factors inside the matrix products, plain or in FP8."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from paramz.nn.fp8 import Fp8
from paramz.nn.scale import PLAIN, Scale, product, transformed
from paramz.nn.scale import scale as scaled


def scaled_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Scale = PLAIN,
    fp8: Fp8 | None = None,
) -> Tensor:
    """A linear map whose forward and backward factors sit in its matrix products.

    Args:
        x: input, (..., fan_in).
        weight: (fan_out, fan_in); a transposed view will do.
        bias: (fan_out,) or None.
        scale: the factors; see `Scale` for the formulas.
        fp8: formats to cast the operands of the three products to; None computes as they are.

    Returns:
        a tensor (..., fan_out).

    >>> x, w = torch.ones(2, 4), torch.ones(3, 4)
    >>> scaled_linear(x, w, scale=Scale(output=0.25))[0].tolist()
    [1.0, 1.0, 1.0]
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        # autocast ends before backward, where all three operands must have one dtype.
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    y: Tensor
    tokens = max(x.numel() // x.shape[-1], 1)  # an expert may get none
    if fp8 is not None:
        if transformed():
            raise RuntimeError(
                "torch.func cannot differentiate a linear map in FP8, whose backward pass is "
                "written by hand: transform the model without low precision, or call .backward()"
            )
        y = _Fp8Linear.apply(x, weight, bias, scale.at(tokens), fp8)  # type: ignore[no-untyped-call]
        return y
    grad, own = scale.grad_output, scale.grad_weight
    if scale.loss_tokens:
        grad *= tokens**scale.loss_tokens
    if scale.weight_tokens:
        own *= tokens**scale.weight_tokens
    alphas = (scale.input * scale.output, grad * scale.grad_input, grad * own * scale.input)
    betas = (scale.output, grad * own)
    if transformed():
        return _formula(x, weight, bias, alphas, betas)
    y = _ScaledLinear.apply(x, weight, bias, alphas, betas)  # type: ignore[no-untyped-call]
    return y


def _formula(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alphas: tuple[float, float, float],
    betas: tuple[float, float],
) -> Tensor:
    """What `_ScaledLinear` computes, made of operations that torch.func can transform."""
    out, to_x, to_weight = alphas
    y = F.linear(scaled(x, out, to_x), scaled(weight, 1.0, to_weight / out))
    return y if bias is None else y + scaled(bias, *betas)


class _ScaledLinear(torch.autograd.Function):
    """Alphas are the factors of the three products, betas those of the bias and its gradient."""

    # Inputs are flattened to rows in here, where views are not recorded for backward.

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        alphas: tuple[float, float, float],
        betas: tuple[float, float],
    ) -> Tensor:
        ctx.factors = alphas[1], alphas[2], betas[1]
        ctx.save_for_backward(x, weight)
        rows = x.reshape(-1, x.shape[-1])
        if bias is None:
            y = product(rows, weight.t(), alphas[0])
        else:
            y = torch.addmm(bias, rows, weight.t(), beta=betas[0], alpha=alphas[0])
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        g = grads[0].reshape(-1, weight.shape[0])
        need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
        to_x, to_weight, to_bias = ctx.factors
        grad_x = grad_weight = grad_bias = None
        if need_x:
            grad_x = product(g, weight, to_x).view(x.shape)
        if need_weight:
            grad_weight = product(g.t(), x.reshape(-1, x.shape[-1]), to_weight)
        if need_bias:
            grad_bias = g.sum(0).mul_(to_bias)
        return grad_x, grad_weight, grad_bias, None, None


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scale: Scale, fp8: Fp8
    ) -> Tensor:
        ctx.scale, ctx.fp8 = scale, fp8
        ctx.save_for_backward(x, weight)
        rows, kind = x.reshape(-1, x.shape[-1]), fp8.forward
        y = fp8.product(kind, rows, scale.input, kind, weight.t(), 1.0, scale.output)
        y = y if bias is None else y.add_(bias, alpha=scale.output)
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        g = grads[0].reshape(-1, weight.shape[0])
        rows = x.reshape(-1, x.shape[-1])
        s, fp8 = ctx.scale, ctx.fp8
        need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        up, down = fp8.backward, fp8.forward
        if need_x:
            grad_x = fp8.product(up, g, s.grad_output, down, weight, 1.0, s.grad_input)
            grad_x = grad_x.view(x.shape)
        if need_weight:
            grad_weight = fp8.product(up, g.t(), s.grad_output, down, rows, s.input, s.grad_weight)
        if need_bias:
            grad_bias = g.sum(0).mul_(s.grad_output * s.grad_weight)
        return grad_x, grad_weight, grad_bias, None, None
