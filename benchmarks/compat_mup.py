"""Cost of paramz.compat.mup against the mup package: a training step, set_base_shapes, MuAdamW.

A GPT whose readout is a MuReadout, so narrow that what a package adds to a step would show. Both
alternate in one process, on one thread; the medians of the ratios of neighbouring steps are
printed, with their quartiles.

    python benchmarks/compat_mup.py [--rounds 200]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from types import ModuleType

import mup
import torch
from _timing import alternate, parser, ratios, tell
from torch import Tensor, nn
from torch.nn import functional as F

import paramz.compat.mup as compat

WIDTH, BASE, VOCABULARY, LAYERS, HEADS, BATCH, LENGTH = 64, 16, 128, 2, 4, 4, 16


class Block(nn.Module):
    """Attention over d and a feed-forward layer, each behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> the same shape."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=4 / q.shape[-1])
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Embedding, blocks and a readout of one of the packages."""

    def __init__(self, width: int, package: ModuleType) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(width), package.MuReadout(width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of ids (batch, length)."""
        return self.head(self.norm(self.blocks(self.tokens(ids))))


def stepper(package: ModuleType, maker: str, **options: float) -> Callable[[], None]:
    model = package.set_base_shapes(GPT(WIDTH, package), GPT(BASE, package))
    optimizer = getattr(package, maker)(model.parameters(), lr=1e-3, **options)
    ids = torch.randint(VOCABULARY, (BATCH, LENGTH))

    def step() -> None:
        F.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def setter(package: ModuleType, rounds: int) -> Callable[[], None]:
    small, more = GPT(BASE, package), GPT(BASE + HEADS, package)
    with torch.device("meta"):
        models = [GPT(WIDTH, package) for _ in range(rounds + 5)]  # a model is put under muP once
    return lambda: package.set_base_shapes(models.pop(), small, delta=more)


def grouper(package: ModuleType) -> Callable[[], None]:
    model = package.set_base_shapes(GPT(WIDTH, package), GPT(BASE, package))
    return lambda: package.MuAdamW(model.parameters(), lr=1e-3)


def compared(what: str, theirs: Callable[[], None], ours: Callable[[], None], rounds: int) -> None:
    runs = {"mup": theirs, "paramz": ours}
    times = alternate(runs, rounds, warm_up=5, clock=time.perf_counter)
    own = 1e3 * statistics.median(times["paramz"])
    tell(
        f"paramz.compat.mup: {what}", "mup", ratios(times, "paramz", "mup"), more=f"({own:.2f} ms)"
    )


def main() -> None:
    rounds = parser(__doc__, rounds=200).parse_args().rounds
    torch.set_num_threads(1)
    for maker in ("MuSGD", "MuAdam", "MuAdamW"):
        compared(f"step of {maker}", stepper(mup, maker), stepper(compat, maker), rounds)
    compared("set_base_shapes on meta", setter(mup, rounds), setter(compat, rounds), rounds)
    compared("MuAdamW(parameters)", grouper(mup), grouper(compat), rounds)


if __name__ == "__main__":
    main()
