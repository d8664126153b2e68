"""Factors that differ in the forward and the backward pass, and matrix products that absorb them.

Unit scaling (Blake et al. 2023, arXiv 2303.11257) multiplies an operation's output and the gradient
of each input by constants of their own. A matrix product takes a factor for free (the alpha of a
GEMM), so the factors of everything around a linear map are folded into its three products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scale:
    """The factors of a linear map: one set of numbers for all three of its matrix products.

    With ``x' = input * x`` and ``g' = grad_output * g`` for the gradient g that arrives::

        y = output * (x' W^T + b)
        grad_x = grad_input * g' W
        grad_W = grad_weight * g'^T x'
        grad_b = grad_weight * sum(g')

    ``x'`` and ``g'`` are the tensors of unit scale, which is what a cast to FP8 must see.

    Attributes:
        input, output, grad_output, grad_input, grad_weight: as above.
        weight_tokens: grad_weight is multiplied by the number of tokens (rows of x) to this power:
            -1/2 where the gradient is a sum over tokens, 0 to leave it as it is.
        loss_tokens: grad_output is multiplied by the number of tokens to this power: 1 for a
            readout under a loss that is a mean over tokens and so divides gradients by it.
    """

    input: float = 1.0
    output: float = 1.0
    grad_output: float = 1.0
    grad_input: float = 1.0
    grad_weight: float = 1.0
    weight_tokens: float = 0.0
    loss_tokens: float = 0.0

    def at(self, tokens: int) -> Scale:
        """The same factors for a given number of tokens, with its powers multiplied in.

        >>> Scale(weight_tokens=-0.5).at(16).grad_weight
        0.25
        """
        if not self.weight_tokens and not self.loss_tokens:
            return self
        return replace(
            self,
            grad_output=self.grad_output * tokens**self.loss_tokens,
            grad_weight=self.grad_weight * tokens**self.weight_tokens,
            weight_tokens=0.0,
            loss_tokens=0.0,
        )

    def times(self, **factors: float) -> Scale:
        """The same with some factors multiplied.

        >>> Scale(output=0.5).times(output=4.0).output
        2.0
        """
        return replace(self, **{name: getattr(self, name) * f for name, f in factors.items()})


PLAIN = Scale()

# What torch.autograd.Function itself asks before it refuses to run under torch.func.
_in_transform: Callable[[], bool] = getattr(
    torch._C, "_are_functorch_transforms_active", lambda: False
)


def transformed() -> bool:
    """Whether grad, vmap or another transform of torch.func runs.

    They differentiate formulas and no hand-written backward pass. Each sees the call inside it, so
    under vmap a token count is that of one sample, as in a loop over samples.

    >>> transformed(), torch.func.vmap(lambda x: x + transformed())(torch.zeros(2)).tolist()
    (False, [1.0, 1.0])
    """
    return not torch.compiler.is_compiling() and _in_transform()


def scale(x: Tensor, forward: float = 1.0, backward: float = 1.0) -> Tensor:
    """``forward * x``, with a gradient that is multiplied by ``backward`` instead.

    Args:
        x: any tensor.
        forward: factor on the value; 1 costs nothing.
        backward: factor on the gradient; 1 costs nothing.

    >>> x = torch.ones(2, requires_grad=True)
    >>> y = scale(x, forward=3.0, backward=0.5)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([3.0, 3.0], [0.5, 0.5])
    """
    if forward == 1.0 and backward == 1.0:
        return x
    if forward == backward:
        return x * forward
    if transformed():
        slope = x * backward
        return (x * forward).detach() + (slope - slope.detach())
    scaled: Tensor = _Scale.apply(x, forward, backward)  # type: ignore[no-untyped-call]
    return scaled


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: float, backward: float) -> Tensor:
        ctx.backward_factor = backward
        return x.view_as(x) if forward == 1.0 else x * forward

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        factor = ctx.backward_factor
        return (g if factor == 1.0 else g * factor), None, None


def product(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """``alpha * a @ b`` of matrices (n, k) and (k, m), at the cost of the plain product."""
    if alpha == 1.0:
        return a @ b
    # With beta=0 the old content of the result is not read. torch.addmm would first fill the result
    # with its first operand, which costs 1 to 3 % of such products on a CPU.
    return a.new_empty(a.shape[0], b.shape[1]).addmm_(a, b, beta=0.0, alpha=alpha)
