"""Unit-scaled embeddings, norms and activations: rows at N(0, 1), gains at 1, biases at 0."""

from __future__ import annotations

from torch import Tensor, nn

from paramz.nn import functional as U


class Embedding(nn.Embedding):
    """A lookup table; the gradient of its rows has a factor of sqrt(vocabulary / tokens).

    Attributes:
        grad_scale: a further factor, where the gradient that arrives is not of unit scale.
    """

    grad_scale: float = 1.0

    def forward(self, ids: Tensor) -> Tensor:
        """(...) of indices -> (..., embedding_dim)."""
        return U.embedding(
            ids,
            self.weight,
            grad_scale=self.grad_scale,
            padding_idx=self.padding_idx,
            max_norm=self.max_norm,
            norm_type=self.norm_type,
            scale_grad_by_freq=self.scale_grad_by_freq,
            sparse=self.sparse,
        )


class LayerNorm(nn.LayerNorm):
    """Layer norm whose gain and bias have gradients times grad_scale / sqrt(tokens)."""

    grad_scale: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends with ``normalized_shape``."""
        shape, factor = self.normalized_shape, self.grad_scale
        return U.layer_norm(x, shape, self.weight, self.bias, self.eps, grad_scale=factor)


class RMSNorm(nn.RMSNorm):
    """RMS norm whose gain has a gradient times grad_scale / sqrt(tokens)."""

    grad_scale: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends with ``normalized_shape``."""
        shape, factor = self.normalized_shape, self.grad_scale
        return U.rms_norm(x, shape, self.weight, self.eps, grad_scale=factor)


class GELU(nn.GELU):
    """`paramz.nn.functional.gelu` as a module."""

    def __init__(self, mult: float = 1.0, approximate: str = "none") -> None:
        super().__init__(approximate)
        self.mult = mult

    def forward(self, x: Tensor) -> Tensor:
        """Entry by entry."""
        return U.gelu(x, self.mult, self.approximate)


class SiLU(nn.Module):
    """`paramz.nn.functional.silu` as a module."""

    def __init__(self, mult: float = 1.0) -> None:
        super().__init__()
        self.mult = mult

    def forward(self, x: Tensor) -> Tensor:
        """Entry by entry."""
        return U.silu(x, self.mult)
