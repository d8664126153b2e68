"""A GPT of any width on the bytes or words of a text: by default the source of Python's stdlib.

`train` is what a sweep runs, `task` is what `paramz check` and `paramz plan` look at. The model is
an ordinary one; paramz changes nothing in its code.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from train_loop import fit

import paramz


class Attention(nn.Module):
    """Causal self-attention with a fused projection to queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> the same shape."""
        batch, time, width = x.shape
        qkv = self.qkv(x).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return self.out(y.transpose(1, 2).reshape(batch, time, width))


class Block(nn.Module):
    """Attention and a GELU feed-forward layer, each behind a layer norm and a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) -> the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A decoder over 256 byte values, or over as many words as it is told.

    Args:
        width: of the residual stream.
        vocabulary: number of different tokens.
        depth: number of blocks.
        heads: attention heads, whose size grows with width.
        context: longest sequence.
        tied: share the embedding with the readout.
        zero: start every residual branch at zero.
        shared: one block that runs ``depth`` times in place of as many blocks.
    """

    def __init__(
        self,
        width: int,
        *,
        vocabulary: int = 256,
        depth: int = 2,
        heads: int = 4,
        context: int = 64,
        tied: bool = False,
        zero: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        blocks = [Block(width, heads) for _ in range(1 if shared else depth)]
        self.blocks = nn.ModuleList(blocks * depth if shared else blocks)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if tied:
            for table in (self.embed, self.position):
                nn.init.normal_(table.weight, std=width**-0.5)
            self.readout.weight = self.embed.weight
        if zero:
            for block in self.blocks:
                nn.init.zeros_(block.attention.out.weight)
                nn.init.zeros_(block.down.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (batch, time, vocabulary) of tokens (batch, time)."""
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x))


@cache
def text(path: str | None, most: int = 8_000_000) -> torch.Tensor:
    """The bytes of a file, or of the standard library's modules in alphabetical order (uint8)."""
    if path is not None:
        data = Path(path).read_bytes()[:most]
    else:
        parts, size = [], 0
        for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            parts.append(file.read_bytes())
            size += len(parts[-1])
            if size >= most:
                break
        data = b"".join(parts)[:most]
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@cache
def words(path: str | None, vocabulary: int) -> torch.Tensor:
    """The text as words, runs of white space and single signs (int64).

    The most frequent have an entry of the vocabulary each, and its last entry is all others.
    """
    found = re.findall(r"\w+|\s+|[^\w\s]", bytes(text(path).numpy()).decode(errors="replace"))
    kept = [word for word, _ in Counter(found).most_common(vocabulary - 1)]
    number = {word: i for i, word in enumerate(kept)}
    return torch.tensor([number.get(word, vocabulary - 1) for word in found])


def tokens(path: str | None, vocabulary: int | None) -> torch.Tensor:
    """The text as bytes, or as the words of a vocabulary."""
    return text(path) if vocabulary is None else words(path, vocabulary)


# The last part of the text, which training does not see if asked to, and windows drawn from it.
HELD_OUT, WINDOWS = 0.05, 512


def batch_of(
    path: str | None,
    batch_size: int,
    context: int,
    seed: int,
    step: int,
    *,
    without: float = 0.0,
    vocabulary: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and those that follow them; the same whenever asked for the same seed and step.

    They are drawn from the text without its last part, a fraction.
    """
    data = tokens(path, vocabulary)
    data = data[: len(data) - round(len(data) * without)]
    generator = torch.Generator().manual_seed((seed << 32) + step)
    starts = torch.randint(len(data) - context - 1, (batch_size,), generator=generator)
    window = data[starts[:, None] + torch.arange(context + 1)].long()
    return window[:, :-1], window[:, 1:]


def task(config: dict[str, Any]) -> paramz.Task:
    """The model and data of a config; every key has a default.

    Keys: depth, heads (their number stays, so their size grows with width), context, batch_size,
    tied, zero (start residual branches at zero), shared (one block that runs depth times), text (a
    path), vocabulary (so many words; without it, bytes), seed (of the batches' order, too),
    held_out (train on all but the text's last twentieth, and judge the trained model by that).
    """
    context, vocabulary = config.get("context", 64), config.get("vocabulary")
    build = partial(
        GPT,
        vocabulary=256 if vocabulary is None else vocabulary,
        depth=config.get("depth", 2),
        heads=config.get("heads", 4),
        context=context,
        tied=config.get("tied", False),
        zero=config.get("zero", False),
        shared=config.get("shared", False),
    )
    drawn = (config.get("text"), config.get("batch_size", 16), context, config.get("seed", 0))
    without = HELD_OUT if config.get("held_out") else 0.0
    batch = partial(batch_of, *drawn, without=without, vocabulary=vocabulary)
    return paramz.Task(build=build, batch=batch)


def held_out(config: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Windows of the last part of the text and the tokens that follow; None unless asked for."""
    if not config.get("held_out"):
        return None
    data, context = tokens(config.get("text"), config.get("vocabulary")), config.get("context", 64)
    data = data[-round(len(data) * HELD_OUT) :]
    starts = torch.linspace(0, len(data) - context - 1, WINDOWS).long()
    window = data[starts[:, None] + torch.arange(context + 1)].long()
    return window[:, :-1], window[:, 1:]


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model. Needs width and lr; loss is the mean over the last tenth of the steps."""
    return fit(task(config), config, trial, held_out=held_out(config))
