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
    """A GELU feed-forward layer of some units."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, size, bias=False)
        self.down = nn.Linear(size, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) -> the same shape."""
        return self.down(F.gelu(self.up(x)))


class MoE(nn.Module):
    """A router and its experts, without load balancing."""

    def __init__(self, width: int, experts: int, top_k: int, size: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, size) for _ in range(experts))

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

    def __init__(self, width: int, heads: int, experts: int, top_k: int, size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.moe = MoE(width, experts, top_k, size)

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
        expert_size: units inside an expert; twice the width if left out.
        expert_widths: units inside all experts of a block together, in widths of the model, in
            place of their size, so that more experts are finer ones.
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
        expert_size: int | None = None,
        expert_widths: int | None = None,
        context: int = 64,
        zero: bool = False,
    ) -> None:
        super().__init__()
        if expert_size and expert_widths:
            raise ValueError(
                "expert_size and expert_widths both say how large experts are: give one"
            )
        units = width * (expert_widths or 2 * experts)
        if units % experts:
            raise ValueError(f"{units} units cannot be divided among {experts} experts")
        size = expert_size or units // experts
        active = top_k or max(1, experts // 4)
        self.embed = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        blocks = (Block(width, heads, experts, active, size) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
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

    Keys: depth, heads, experts, top_k (default: a quarter of the experts), expert_size (units in an
    expert; default: twice the width) or expert_widths (units in all experts of a block together, in
    widths of the model, so that more experts are finer), context, batch_size, zero (start residual
    branches at zero), text, seed (of the batches' order, too).
    """
    context = config.get("context", 64)
    build = partial(
        MoEGPT,
        depth=config.get("depth", 2),
        heads=config.get("heads", 4),
        experts=config.get("experts", 8),
        top_k=config.get("top_k"),
        expert_size=config.get("expert_size"),
        expert_widths=config.get("expert_widths"),
        context=context,
        zero=config.get("zero", False),
    )
    drawn = (config.get("text"), config.get("batch_size", 16), context, config.get("seed", 0))
    batch = partial(batch_of, *drawn)
    return paramz.Task(build=build, batch=batch)


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model. Needs width and lr; loss is the mean over the last tenth of the steps."""
    return fit(task(config), config, trial)
