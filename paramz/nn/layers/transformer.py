"""A unit-scaled transformer decoder with every factor folded into a matrix product.

The function, its gradients and its weights are those of unit_scaling's TransformerDecoder (Blake et
al. 2024): SwiGLU of four times the width, RMS norms without gains in front of each branch, causal
attention without positions, the tau rule. Only the cost differs: the one operation more than in a
plain model is a multiplication of each skip connection's gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramz.nn import functional as U
from paramz.nn.layers.linear import Linear, Readout
from paramz.nn.layers.modules import Embedding, RMSNorm
from paramz.nn.linear import scaled_linear
from paramz.nn.residual import Alphas, taus

EPS = 1e-5


class Attention(nn.Module):
    """A causal attention branch, from its norm to the skip connection.

    Args:
        width: of the model.
        heads: number of heads.
        tau: ratio of this branch to the skip connection.
        mult: alpha_attn-softmax.
    """

    def __init__(self, width: int, heads: int, tau: float, mult: float = 1.0) -> None:
        super().__init__()
        self.heads, self.mult = heads, mult
        self.branch, self.skip = U.branch_weights(tau)
        self.norm = RMSNorm(width, EPS, elementwise_affine=False)
        self.qkv = Linear(width, 3 * width)
        # The branch's weight is on the gradient where it begins, and on the value where it ends.
        self.qkv.scale = self.qkv.scale.times(grad_input=self.branch)
        self.out = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> the same shape."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        d_head = width // self.heads
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.mult / d_head)
        unit = U.attention_scale(length, d_head, causal=True, mult=self.mult)
        return self._out(y.transpose(1, 2).reshape(batch, length, width), x, unit)

    def _out(self, y: Tensor, x: Tensor, unit: float) -> Tensor:
        scale = self.out.scale.times(input=unit, output=self.branch, grad_input=unit)
        branch = scaled_linear(y, self.out.weight, scale=scale, fp8=self.out.fp8)
        return torch.add(branch, x, alpha=self.skip)


class FeedForward(nn.Module):
    """A SwiGLU branch, from its norm to the skip connection.

    Args:
        width: of the model.
        hidden: of the layer.
        tau: ratio of this branch to the skip connection.
        mult: alpha_ffn-act.
    """

    def __init__(self, width: int, hidden: int, tau: float, mult: float = 1.0) -> None:
        super().__init__()
        branch, self.skip = U.branch_weights(tau)
        unit = U.glu_scale(mult)
        self.norm = RMSNorm(width, EPS, elementwise_affine=False)
        # No constraint: down makes up in the value for what up and gate do to the gradient's scale.
        entry = U.linear_scale(width, hidden, "none").times(grad_input=branch)
        self.up = Linear(width, hidden, scale=entry.times(grad_output=1 / mult))
        self.gate = Linear(width, hidden, scale=entry.times(output=mult))
        down = U.linear_scale(hidden, width, "none")
        self.down = Linear(
            hidden,
            width,
            scale=down.times(input=unit / mult, output=branch, grad_input=unit),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> the same shape."""
        n = self.norm(x)
        return torch.add(self.down(self.up(n) * F.silu(self.gate(n))), x, alpha=self.skip)


class TransformerDecoder(nn.Module):
    """Logits and loss of a causal language model; see the top of this file.

    Args:
        width: of the model.
        vocabulary: number of tokens.
        layers: each an attention and a feed-forward branch.
        heads: number of attention heads.
        alphas: the five hyperparameters.

    >>> model = TransformerDecoder(32, vocabulary=11, layers=2, heads=2)
    >>> ids = torch.randint(11, (3, 8))
    >>> model(ids).shape, model.loss(ids).dim()
    (torch.Size([3, 8, 11]), 0)
    """

    def __init__(
        self, width: int, vocabulary: int, layers: int, heads: int, alphas: Alphas | None = None
    ) -> None:
        super().__init__()
        self.alphas = a = alphas or Alphas()
        tau = taus([True, False] * layers, a)
        self.embedding = Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                Attention(width, heads, tau[2 * i], a.attn_softmax),
                FeedForward(width, 4 * width, tau[2 * i + 1], a.ffn_act),
            )
            for i in range(layers)
        )
        self.norm = RMSNorm(width, EPS, elementwise_affine=False)
        self.readout = Readout(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of ids (batch, length)."""
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.readout(self.norm(x))
        return logits

    def loss(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of every next token, with gradients of unit scale."""
        logits = self(ids)[:, :-1].flatten(end_dim=1).float()
        return U.cross_entropy(logits, ids[:, 1:].flatten(), self.alphas.loss_softmax)
