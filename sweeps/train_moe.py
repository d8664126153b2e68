"""The byte-level GPT of train_lm with a mixture of experts in every block.

`train` is what a sweep runs, `task` is what `paramz check` and `paramz plan` look at. Every token
goes to its `top_k` best experts, whose outputs are averaged with gates that add up to one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from train_lm import Attention, batch_of
from train_loop import fit

import paramz


class Expert(nn.Module):
    """A GELU feed-forward layer with 2 times the model's width inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) -> the same shape."""
        return self.down(F.gelu(self.up(x)))


class MoE(nn.Module):
    """A router and its experts, without load balancing."""

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width) for _ in range(experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> the same shape."""
        tokens = x.reshape(-1, x.shape[-1])
        logits, chosen = self.router(tokens).topk(self.top_k, dim=-1)
        gates = logits.softmax(dim=-1)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            token, place = (chosen == index).nonzero(as_tuple=True)
            made = gates[token, place, None] * expert(tokens[token])
            out = out.index_add(0, token, made.to(out.dtype))  # under autocast it is shorter
        return out.view_as(x)


class Block(nn.Module):
    """Attention and a mixture of experts, each behind a layer norm and a skip connection."""

    def __init__(self, width: int, heads: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.moe = MoE(width, experts, top_k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.moe(self.norm2(x))


class MoEGPT(nn.Module):
    """A decoder over 256 byte values.

    Args:
        width: of the residual stream.
        depth: number of blocks.
        heads: attention heads, whose size grows with width.
        experts: experts in every block.
        top_k: experts per token; a quarter of them if left out.
        context: longest sequence.
        zero: start every residual branch at zero.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int = 2,
        heads: int = 4,
        experts: int = 8,
        top_k: int | None = None,
        context: int = 64,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, experts, top_k or max(1, experts // 4)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, 256, bias=False)
        for name, parameter in self.named_parameters():
            if zero and name.endswith((".out.weight", ".down.weight")):
                nn.init.zeros_(parameter)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (batch, time, 256) of byte values (batch, time)."""
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x))


def task(config: dict[str, Any]) -> paramz.Task:
    """The model and data of a config; every key has a default.

    Keys: depth, heads, experts, top_k (default: a quarter of the experts), context, batch_size,
    zero (start residual branches at zero), text, seed (of the batches' order, too).
    """
    context = config.get("context", 64)
    build = partial(
        MoEGPT,
        depth=config.get("depth", 2),
        heads=config.get("heads", 4),
        experts=config.get("experts", 8),
        top_k=config.get("top_k"),
        context=context,
        zero=config.get("zero", False),
    )
    drawn = (config.get("text"), config.get("batch_size", 16), context, config.get("seed", 0))
    batch = partial(batch_of, *drawn)
    return paramz.Task(build=build, batch=batch)


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model. Needs width and lr; loss is the mean over the last tenth of the steps."""
    return fit(task(config), config, trial)
