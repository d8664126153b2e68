"""The blocks of models drawn at random (`_drawn.py`), in ways that people write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

TIME = 16
Make = Callable[[int], nn.Module]


class RMS(nn.Module):
    """A norm of one's own, with a gain that starts at 1 or, as in Gemma, at 0."""

    def __init__(self, width: int, offset: float = 0.0) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.full((width,), 1.0 - offset)), offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.offset + self.gain) * F.rms_norm(x, (x.shape[-1],))


NORMS: dict[str, Make] = {
    "layer norm": nn.LayerNorm,
    "no bias": partial(nn.LayerNorm, bias=False),
    "own": RMS,
    "own, 1 + w": partial(RMS, offset=1.0),
    "RMSNorm": nn.RMSNorm,
}


def causal(scores: torch.Tensor) -> torch.Tensor:
    """Softmax over what came before."""
    length = scores.shape[-1]
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


class Fused(nn.Module):
    """One map to queries, keys and values; the scale before the product or behind it."""

    def __init__(self, width: int, heads: int, first: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.first = heads, (width // heads) ** -0.5, first
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        k = k.transpose(-2, -1)
        scores = (q * self.scale) @ k if self.first else (q @ k) * self.scale
        return self.proj((causal(scores) @ v).transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    """Fewer key-value heads than queries, with or without norms on both."""

    def __init__(self, width: int, heads: int, groups: int, normed: bool) -> None:
        super().__init__()
        size = width // heads
        self.size, self.scaling, self.times = size, size**-0.5, heads // groups
        self.wq, self.wo = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.wk = nn.Linear(width, groups * size, bias=False)
        self.wv = nn.Linear(width, groups * size, bias=False)
        norm = nn.RMSNorm if normed else nn.Identity
        self.q_norm, self.k_norm = norm(size), norm(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, self.size)) for f in (self.wq, self.wk, self.wv))
        q, k, v = (y.transpose(1, 2) for y in (self.q_norm(q), self.k_norm(k), v))
        k, v = (y.repeat_interleave(self.times, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scaling)
        return self.wo(y.transpose(1, 2).flatten(2))


class Bare(nn.Module):
    """Attention by einsum over matrices that no layer owns."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        size = width // heads
        self.q, self.k, self.v = (
            nn.Parameter(torch.randn(heads, width, size) * width**-0.5) for _ in range(3)
        )
        self.o = nn.Parameter(torch.randn(heads, size, width) * width**-0.5)
        self.scale = size**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.einsum("btd,hde->bhte", x, w) for w in (self.q, self.k, self.v))
        mixed = causal(torch.einsum("bhte,bhse->bhts", q, k) * self.scale)
        return torch.einsum("bhte,hed->btd", mixed @ v, self.o)


class Multihead(nn.Module):
    """torch's own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.inner(x, x, x, attn_mask=hidden, need_weights=False)[0]


class Linear(nn.Module):
    """Linear attention with softmax features, heads of one size, and a norm behind it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 16)).transpose(1, 2) for f in (self.q, self.k, self.v))
        kept = torch.einsum("bhte,bhtf->bhtef", k.softmax(-1), v).cumsum(2)
        y = torch.einsum("bhte,bhtef->bhtf", q.softmax(-1), kept)
        return self.o(self.norm(y.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Two maps, into a size that grows or stays."""

    def __init__(self, width: int, inner: int, act: Callable, bias: bool = True) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner, bias), nn.Linear(inner, width, bias)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x)))


class Gated(nn.Module):
    """A gated feed-forward layer, its two maps into it in one or apart; sizes rounded or not."""

    def __init__(self, width: int, fused: bool, rounded: bool) -> None:
        super().__init__()
        inner = 8 * -(-8 * width // 24) if rounded else 2 * width
        self.up = nn.Linear(width, (1 + fused) * inner, bias=False)
        self.gate = None if fused else nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.up(x).chunk(2, -1) if self.gate is None else (self.up(x), self.gate(x))
        return self.down(F.silu(b) * a)


class Experts(nn.Module):
    """All experts, weighted by a softmax, as stacks of matrices."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, number, bias=False)
        self.w1, self.w2 = (
            nn.Parameter(torch.randn(number, width, width) * width**-0.5) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.einsum("btd,edf->btef", x, self.w1).relu()
        return torch.einsum("btef,efd,bte->btd", h, self.w2, self.router(x).softmax(-1))


class Convolution(nn.Module):
    """Along time, over all channels or each, then a map at every place."""

    def __init__(self, width: int, depthwise: bool) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 3, groups=width if depthwise else 1)
        self.point = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.point(F.gelu(self.mix(F.pad(x.transpose(1, 2), (2, 0))))).transpose(1, 2)


class Recurrent(nn.Module):
    """torch's."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.inner = getattr(nn, kind)(width, width, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


class SpatialGate(nn.Module):
    """gMLP's: a map over time that starts at zero gates the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.norm, self.out = (
            nn.Linear(width, 2 * width), nn.LayerNorm(width), nn.Linear(width, width)
        )  # fmt: skip
        self.mix, self.bias = nn.Parameter(torch.zeros(TIME, TIME)), nn.Parameter(torch.ones(TIME))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = F.gelu(self.up(x)).chunk(2, -1)
        return self.out(a * (self.mix.tril() @ self.norm(b) + self.bias[:, None]))


class Squeezed(nn.Module):
    """Squeeze and excitation, into a quarter of the width or a size that stays."""

    def __init__(self, width: int, fixed: bool) -> None:
        super().__init__()
        size = 16 if fixed else width // 4
        self.map = nn.Linear(width, width)
        self.one, self.two = nn.Linear(width, size), nn.Linear(size, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.map(x)
        return y * torch.sigmoid(self.two(F.relu(self.one(y.mean(1, keepdim=True)))))


class Conditioned(nn.Module):
    """FiLM: gains and biases that are made of a few numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map, self.make = nn.Linear(width, width), nn.Linear(8, 2 * width)
        self.register_buffer("given", torch.linspace(-1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain, bias = self.make(self.given).chunk(2, -1)
        return self.map(x) * (1 + gain) + bias


class StateSpace(nn.Module):
    """A diagonal recurrence with a gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(width) * 2 + 1)
        self.into, self.gate, self.out = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep, u = torch.sigmoid(self.decay), self.into(x)
        h, states = torch.zeros_like(u[:, 0]), []
        for t in range(u.shape[1]):
            h = keep * h + (1 - keep) * u[:, t]
            states.append(h)
        return self.out(torch.stack(states, 1) * F.silu(self.gate(x)))
