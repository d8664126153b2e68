"""Weight normalization: w = g v / |v|, with a length g and a direction v per output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.kernels import gpu
from paramz.reparam.kernels.eager import is_eager
from paramz.reparam.recipe import Scaling
from paramz.theory.printed import IN

_TENSORS = ("v", "g")
# v starts as W itself (|v| = g), so W's learning rate is right for it. g is sqrt(fan_in) times the
# std of W: 1 in a hidden layer, fan_in^-1/2 in muP's readout. Decay of v would only change its
# effective learning rate; it is the decay of g that regularises.
_SCALINGS = {
    "v": Scaling("weight", branch=True, decays=False),
    "g": Scaling("per output", size=lambda std, _: std * IN ** Fraction(1, 2)),
}


@dataclass(frozen=True)
class WeightNorm:
    """A recipe for w = g v / |v| per output.

    Salimans and Kingma 2016 (arXiv 1602.07868), eq. 2. At first v is the weight and g its length
    per output, so the function is the same, bit for bit; `paramz.reparam.weight_norm_init_` is the
    paper's init on a batch. Under muP v has the weight's learning rate. g is as large as the rows
    of the weight: its lr is 1 (Adam) or fan_out (SGD) where fan_out grows, and in the readout
    fan_in^-1/2 (Adam) or 1/fan_in (SGD).

    Attributes:
        dims: the axes over which lengths are taken; `bind` sets them.
    """

    dims: tuple[int, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """v, of the shape of the weight, and g, one number per output."""
        return _TENSORS

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rules of v and g."""
        return _SCALINGS

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe with lengths over inputs and kernel positions, but not over stacked matrices.

        Raises:
            ValueError: the weight is that of a transposed convolution with groups, which has no
                axis of outputs.
        """
        shape = getattr(module, name).shape
        if isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups > 1:
            raise ValueError(
                f"the outputs of a transposed convolution with {module.groups} groups are no axis "
                f"of its weight {tuple(shape)}, so there are no lengths per output: choose other "
                "layers with where="
            )
        first = min(axes.fan_in + axes.fan_out)
        dims = (a for a in range(len(shape)) if a >= first and a not in axes.fan_out)
        return replace(self, dims=tuple(dims))

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The weight as v, and its lengths as g.

        Raises:
            ValueError: the weights of an output are all zero, so they have no direction.
        """
        g = _length(weight, self.dims)
        if not g.is_meta and not bool(g.all()):
            raise ValueError(
                f"weight normalization of {tuple(weight.shape)}: {int((g == 0).sum())} outputs "
                "have weights that are all zero, which have no direction. Initialise them first, "
                "or leave the layer out with where="
            )
        return {"v": weight.clone(), "g": g}

    def weight(self, v: Tensor, g: Tensor) -> Tensor:
        """Compute the weight, in one pass over memory forward and one backward."""
        return normalized(v, g, self.dims)


def normalized(v: Tensor, g: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Compute g v / |v| with lengths over ``dims``, where g has size 1.

    Where there is a length per entry of the first or of the last axis, forward and backward are one
    kernel each: torch's own, or a Triton kernel on GPUs. Otherwise, and where hand-written
    gradients cannot be used (see `is_eager`), the formula itself is computed.

    >>> normalized(torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0]]), (1,))
    tensor([[6., 8.]])
    """
    kept = _one_axis(v.dim(), dims)
    if kept is None or not is_eager(v):
        return v * (g / _length(v, dims))
    made: Tensor = _Normalize.apply(v, g, kept)  # type: ignore[no-untyped-call]
    return made


@cache
def _one_axis(size: int, dims: tuple[int, ...]) -> int | None:
    """The axis that is not summed over, if torch's kernel supports it: the first or the last."""
    kept = [axis for axis in range(size) if axis not in dims]
    return kept[0] if kept in ([0], [size - 1]) else None


def _length(v: Tensor, dims: tuple[int, ...]) -> Tensor:
    """|v| with the kernel's own rounding, so that g / |v| is exactly 1 at first."""
    kept = _one_axis(v.dim(), dims)
    if kept is None or not is_eager(v):
        length: Tensor = torch.linalg.vector_norm(v, dim=dims, keepdim=True)
        return length
    ones = v.new_ones([n if axis == kept else 1 for axis, n in enumerate(v.shape)])
    found: Tensor = torch._weight_norm_interface(v.contiguous(), ones, kept)[1]
    return found.to(v.dtype)


_forward_kernel = torch.ops.aten._weight_norm_interface.default
_backward_kernel = torch.ops.aten._weight_norm_interface_backward.default


class _Normalize(torch.autograd.Function):
    """Weight normalization with the gradients of a kernel.

    dL/dg = v.dL/dw / |v| and dL/dv = g/|v| (dL/dw - v (v.dL/dw) / |v|^2). torch's own autograd
    formula for this kernel would spare the detour through Python, 0.5 % of a training step, but its
    second derivatives are wrong (torch 2.13 takes |v| for a constant there), and gradient penalties
    need them.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, g: Tensor, axis: int) -> Tensor:
        kernels = gpu.kernels(v) if v.is_cuda else None
        if kernels is not None:
            w, length = kernels.normalize(v, g, axis)
        else:
            v = v.contiguous()
            w, length = _forward_kernel(v, g, axis)
        ctx.axis = axis
        ctx.save_for_backward(v, g, length)
        made: Tensor = w
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        v, g, length = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled():  # this gradient will itself be differentiated
            return (*_gradients(v, g, grad, ctx.axis), None)
        kernels = gpu.kernels(v) if v.is_cuda else None
        if kernels is not None:
            return (*kernels.normalize_backward(grad, v, g, length, ctx.axis), None)
        return (*_backward_kernel(grad.contiguous(), v, g, length, ctx.axis), None)


def _gradients(v: Tensor, g: Tensor, grad: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    dims = tuple(a for a in range(v.dim()) if a != axis)
    length = torch.linalg.vector_norm(v, dim=dims, keepdim=True)
    dg = (v * grad).sum(dims, keepdim=True) / length
    return g / length * (grad - v * (dg / length)), dg


def effective_learning_rate(lr: float, g: float, v_length: float) -> float:
    """The learning rate that the direction of w feels under SGD: lr (g / |v|)^2.

    Every step of SGD is orthogonal to v, so it adds lr^2 |dL/dv|^2 to |v|^2, and this rate falls.
    (It follows from the gradient of Salimans and Kingma 2016, eq. 3.)

    >>> effective_learning_rate(0.1, 1.0, 2.0)
    0.025
    """
    return lr * math.pow(g / v_length, 2)
