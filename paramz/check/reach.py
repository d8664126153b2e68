"""How large attention logits become where queries and keys align: ``scale * |q| * |k|``.

At init queries and keys are independent, so 1/sqrt(d_head) gives logits of constant size; once they
align a logit is this product, which grows like sqrt(d_head) unless the scale is 1/d_head (TP-V,
appendix B; u-muP, section 2). It is known without any noise before the first step, while the logits
themselves show it only after they are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_PRODUCTS = (torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__)
_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax)
_KEPT = 8  # products of activations that may still meet a softmax


class Reaches(TorchFunctionMode):
    """Tells of every attention in a forward pass, fused or written out as product and softmax.

    Args:
        found: called with the reach of each, in the middle of the module that computes it.
    """

    def __init__(self, found: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.found = found
        self.products: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key"), args, strict=False)) | kwargs
            query, key = named["query"].detach(), named["key"].detach()
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            self.found(abs(scale) * _length(query, -1) * _length(key, -1))
        elif func is F.multi_head_attention_forward and args[5] is not None:
            self.found(_of_torch_attention(*args[:2], *args[4:7]))
        result = func(*args, **kwargs)
        if func in _PRODUCTS and result.dim() >= 3:
            self._remember(args, result)
        elif func in _SOFTMAX and args:
            self._match(args[0].detach())
        return result

    def _remember(self, args: tuple[Any, ...], product: torch.Tensor) -> None:
        if len(args) > 1 and not any(isinstance(a, torch.nn.Parameter) for a in args[:2]):
            query, key = args[0].detach(), args[1].detach()
            reach = _length(query, -1) * _length(key, -2)
            self.products = [*self.products, (product.detach(), reach)][-_KEPT:]

    def _match(self, logits: torch.Tensor) -> None:
        """Find the product that went into a softmax, and the factor between the two."""
        for product, reach in reversed(self.products):
            if product.shape == logits.shape and not product.is_complex():
                factor = _factor(product.float(), logits.float())
                if factor is not None:
                    self.found(factor * reach)
                return


def _of_torch_attention(
    query: torch.Tensor, key: torch.Tensor, heads: int, weight: torch.Tensor, bias: Any
) -> torch.Tensor:
    """The reach inside `torch.nn.MultiheadAttention`, whose own products no mode sees."""
    parts = range(3) if bias is None else bias.detach().chunk(3)
    lengths = []
    for x, own, offset in zip((query, key), weight.detach().chunk(3), parts, strict=False):
        projected = F.linear(x.detach(), own, None if bias is None else offset)
        lengths.append(_length(projected.reshape(*projected.shape[:-1], heads, -1), -1))
    reach: torch.Tensor = lengths[0] * lengths[1] * (weight.shape[1] // heads) ** -0.5
    return reach


def _length(vectors: torch.Tensor, axis: int) -> torch.Tensor:
    """The root mean square, over all vectors, of their Euclidean length."""
    return vectors.abs().float().square().sum(axis).mean().sqrt()


def _factor(product: torch.Tensor, logits: torch.Tensor) -> torch.Tensor | None:
    """The factor by which logits follow a product, where no mask hides them; None if they do not.

    A softmax ignores what all keys have in common, so that is taken off first.
    """
    seen = torch.isfinite(logits) & (logits > torch.finfo(torch.float16).min)
    count = seen.sum(-1, keepdim=True).clamp(min=1)

    def centred(values: torch.Tensor) -> torch.Tensor:
        values = values.where(seen, torch.zeros(()).to(values))
        return (values - values.sum(-1, keepdim=True) / count) * seen

    x, y = centred(product), centred(logits)
    square = (x * x).sum()
    if not square > 0:
        return None
    factor = (x * y).sum() / square
    explained = (factor * factor * square) / (y * y).sum().clamp(min=1e-30)
    return factor.abs() if explained > 0.5 else None
