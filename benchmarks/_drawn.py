"""Byte-level models drawn at random: a start, blocks of 16 kinds, norms and a readout.

They were made to find out what a check says of models that nobody had in mind when it was written.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from _drawn_blocks import (
    NORMS,
    TIME,
    Bare,
    Conditioned,
    Convolution,
    Experts,
    FeedForward,
    Fused,
    Gated,
    Grouped,
    Linear,
    Make,
    Multihead,
    Recurrent,
    SpatialGate,
    Squeezed,
    StateSpace,
)
from torch import nn

BYTES = 256


def block(draw: random.Random) -> tuple[str, Make]:
    """The name of a kind of block, and what makes one of a width."""
    grow = draw.random() < 0.5  # heads of size 16 whose number grows, or four that grow

    def heads(width: int) -> int:
        return width // 16 if grow else 4

    kv, normed, first = draw.choice([1, 2, 4]), draw.random() < 0.4, draw.random() < 0.5
    act, bias = draw.choice([F.relu, F.gelu, torch.tanh, F.silu]), draw.random() < 0.5
    times, number, kind = draw.choice([1, 2, 4]), draw.choice([2, 4]), draw.choice(["GRU", "LSTM"])
    more = "more heads" if grow else "larger heads"
    kinds: list[tuple[str, Make]] = [
        (f"attention, fused, {more}", lambda w: Fused(w, heads(w), first)),
        (
            f"attention, {kv} queries a key, {more}",
            lambda w: Grouped(w, heads(w), max(1, heads(w) // kv), normed),
        ),
        (f"attention, bare, {more}", lambda w: Bare(w, heads(w))),
        (f"attention of torch, {more}", lambda w: Multihead(w, heads(w))),
        ("linear attention", Linear),
        ("feed-forward", lambda w: FeedForward(w, times * w, act, bias)),
        ("gated", lambda w: Gated(w, first, normed)),
        ("low rank", lambda w: FeedForward(w, w // 8, nn.Identity(), False)),
        ("bottleneck", lambda w: FeedForward(w, 24, act, bias)),
        ("experts", lambda w: Experts(w, number)),
        ("convolution", lambda w: Convolution(w, first)),
        (kind, lambda w: Recurrent(w, kind)),
        ("spatial gate", SpatialGate),
        ("squeeze", lambda w: Squeezed(w, first)),
        ("FiLM", Conditioned),
        ("state space", StateSpace),
    ]
    return draw.choice(kinds)


@dataclass(frozen=True)
class Drawing:
    """What a model is made of."""

    start: str
    position: bool
    norm: str
    place: str
    blocks: tuple[tuple[str, Make], ...]
    end: str

    def __str__(self) -> str:
        inner = "; ".join(name for name, _ in self.blocks)
        return f"{self.start}, [{inner}], {self.norm} {self.place}, {self.end}"


def drawing(seed: int) -> Drawing:
    """One of many."""
    draw = random.Random(seed)
    return Drawing(
        start=draw.choice(["embedding", "embedding", "factors", "stem", "one-hot"]),
        position=draw.random() < 0.5,
        norm=draw.choice(list(NORMS)),
        place=draw.choice(["pre", "pre", "pre", "post", "alone"]),
        blocks=tuple(block(draw) for _ in range(draw.choice([1, 2, 3]))),
        end=draw.choice(["head", "zero", "two maps", "narrow", "bare", "cosine"]),
    )


class Drawn(nn.Module):
    """A model of a width by a drawing, see `drawing`."""

    def __init__(self, width: int, drawn: Drawing) -> None:
        super().__init__()
        norm = NORMS[drawn.norm]
        self.start, self.place, self.end = drawn.start, drawn.place, drawn.end
        if drawn.start == "one-hot":
            self.inner = nn.Linear(BYTES, width)
        elif drawn.start == "embedding":
            self.embed = nn.Embedding(BYTES, width)
        else:
            self.embed = nn.Embedding(BYTES, 16)
            self.inner = nn.Conv1d(16, width, 3) if drawn.start == "stem" else nn.Linear(16, width)
        self.position = nn.Parameter(torch.randn(TIME, width) / 2) if drawn.position else None
        self.norms = nn.ModuleList(norm(width) for _ in drawn.blocks)
        self.blocks = nn.ModuleList(make(width) for _, make in drawn.blocks)
        self.norm = norm(width)
        if drawn.end in ("two maps", "narrow"):
            self.before = nn.Linear(width, width if drawn.end == "two maps" else 32)
        if drawn.end in ("bare", "cosine"):
            self.readout = nn.Parameter(torch.randn(width, BYTES) * width**-0.5)
        else:
            self.head = nn.Linear(32 if drawn.end == "narrow" else width, BYTES)
        if drawn.end == "zero":
            nn.init.zeros_(self.head.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self._started(tokens)
        if self.position is not None:
            x = x + self.position
        for norm, block in zip(self.norms, self.blocks, strict=False):
            if self.place == "pre":
                x = x + block(norm(x))
            else:
                x = norm(x + block(x)) if self.place == "post" else norm(block(x))
        x = self.norm(x)
        if self.end in ("two maps", "narrow"):
            x = F.gelu(self.before(x))
        if self.end == "bare":
            return x @ self.readout
        if self.end == "cosine":
            return 16 * F.normalize(x, dim=-1) @ F.normalize(self.readout, dim=0)
        return self.head(x)

    def _started(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.start == "one-hot":
            return self.inner(F.one_hot(tokens, BYTES).float())
        x = self.embed(tokens)
        if self.start == "stem":
            return self.inner(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        return x if self.start == "embedding" else self.inner(x)
