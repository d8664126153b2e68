"""MoEUT (Csordás et al. 2024, arXiv 2405.16039), with the layers and names of its public code.

Groups of layers repeat. Values and outputs of a head are mixtures of experts (SwitchHead), and so
is the feed-forward part (sigma-MoE); sigmoids choose and weigh experts one by one. What is chosen,
queries and keys are read behind a norm, values and the feed-forward part's input without one.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def chosen(scores: torch.Tensor, top_k: int) -> torch.Tensor:
    """Scores (..., experts) -> gates of the same shape, zero but for the largest."""
    gates = scores.sigmoid()
    index = gates.topk(top_k, -1).indices
    return torch.zeros_like(gates).scatter(-1, index, gates.gather(-1, index))


def drawn(std: float, *shape: int) -> nn.Parameter:
    """Normal numbers of a size."""
    return nn.Parameter(torch.randn(*shape) * std)


class SigmaMoE(nn.Module):
    """Feed-forward experts: keys into them, values out of them, a router as a bare matrix."""

    def __init__(self, width: int, experts: int, size: int, k: int, scale: float) -> None:
        super().__init__()
        self.n_experts, self.n_heads = experts, k
        self.keys = drawn(scale * width**-0.5, experts, width, size)
        self.values = drawn(scale * (experts * size) ** -0.5, experts, size, width)
        self.expert_sel = drawn(scale * width**-0.5, experts, width)

    def forward(self, x: torch.Tensor, routed_by: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) twice -> the same shape."""
        gates = chosen(F.linear(routed_by, self.expert_sel), self.n_heads)
        hidden = torch.einsum("btd,edh->bteh", x, self.keys).relu()
        return torch.einsum("bteh,ehd,bte->btd", hidden, self.values, gates)


class SwitchHead(nn.Module):
    """Attention whose values and outputs are experts of each head."""

    def __init__(
        self, width: int, heads: int, experts: int, size: int, moe_k: int, scale: float
    ) -> None:
        super().__init__()
        self.n_heads, self.n_experts, self.moe_k, self.size = heads, experts, moe_k, size
        self.q, self.k = (nn.Linear(width, heads * size, bias=False) for _ in range(2))
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=scale * width**-0.5)
        self.v = drawn(scale * width**-0.5, heads * experts, width, size)
        self.o = drawn(scale * (heads * size) ** -0.5, heads * experts, size, width)
        self.sel_v, self.sel_o = (
            drawn(scale * width**-0.5, heads * experts, width) for _ in range(2)
        )
        self.scale = size**-0.5

    def gates(self, x: torch.Tensor, selector: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> (batch, time, heads * experts)."""
        scores = F.linear(x, selector).unflatten(-1, (self.n_heads, self.n_experts))
        return chosen(scores, self.moe_k).flatten(-2)

    def forward(self, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) twice -> the same shape."""
        q, k = (f(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for f in (self.q, self.k))
        v = torch.einsum("btd,edp->btep", values, self.v) * self.gates(x, self.sel_v)[..., None]
        v = v.unflatten(2, (self.n_heads, self.n_experts)).sum(3).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        out = out.transpose(1, 2).repeat_interleave(self.n_experts, 2)
        return torch.einsum("btep,epd,bte->btd", out, self.o, self.gates(x, self.sel_o))


class Layer(nn.Module):
    """Attention and experts, each behind a norm that its selection reads."""

    def __init__(self, width: int, heads: int, attention: tuple, ffn: tuple) -> None:
        super().__init__()
        self.attention, self.ffn = SwitchHead(width, heads, *attention), SigmaMoE(width, *ffn)
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> the same shape."""
        x = x + self.attention(self.ln1(x), x)
        return x + self.ffn(x, self.ln2(x))


class MoEUT(nn.Module):
    """A language model of `layers` layers, of which `group` are different ones."""

    def __init__(
        self, width: int = 64, layers: int = 4, experts: int = 8, group: int = 2, *,
        top_k: int = 2, att_experts: int = 4, att_k: int = 2, head: int = 16, size: int = 16,
        tokens: int = 32,
    ) -> None:  # fmt: skip
        super().__init__()
        heads = width // head
        self.embedding = nn.Embedding(tokens, width)
        self.n_repeats = layers // group
        scale = (2 / layers) ** 0.5
        self.layers = nn.ModuleList(
            Layer(width, heads, (att_experts, head, att_k, scale), (experts, size, top_k, scale))
            for _ in range(group)
        )
        self.out_norm, self.lm_head = nn.LayerNorm(width), nn.Linear(width, tokens)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, time) -> logits (batch, time, tokens)."""
        x = self.embedding(ids)
        for _ in range(self.n_repeats):
            for layer in self.layers:
                x = layer(x)
        return self.lm_head(self.out_norm(x))
