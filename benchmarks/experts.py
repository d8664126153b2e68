"""Coordinate checks of mixtures of experts over the ways in which they are made larger.

python benchmarks/experts.py [seeds]

Writes benchmarks/results/experts.csv, the table of docs/parametrizations.md ("More experts").
Experts start at zero, as the mean of their random outputs falls with their number before training,
whatever the scheme.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

import paramz

RESULTS = Path(__file__).parent / "results" / "experts.csv"
CLASSES, INPUTS, POINTS = 10, 16, 256


class Experts(nn.Module):
    """Experts of one hidden layer, of which some see a point, with gates that add up to one."""

    def __init__(self, width: int, experts: int, hidden: int, active: int) -> None:
        super().__init__()
        self.gate, self.top_k = nn.Linear(width, experts, bias=False), active
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, hidden, bias=False),
                nn.ReLU(),
                nn.Linear(hidden, width, bias=False),
            )
            for _ in range(experts)
        )
        for expert in self.experts:
            nn.init.zeros_(expert[2].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(points, width) -> the same shape."""
        logits, chosen = self.gate(x).topk(self.top_k, -1)
        share = torch.zeros(len(x), len(self.experts)).scatter(-1, chosen, logits.softmax(-1))
        return sum(share[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Net(nn.Module):
    """One mixture of experts behind a norm, beside a skip connection."""

    def __init__(self, width: int, experts: int, hidden: int, active: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(INPUTS, width), nn.LayerNorm(width)
        self.moe, self.head = Experts(width, experts, hidden, active), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(points, 16) -> logits."""
        h = torch.tanh(self.first(x))
        return self.head(h + self.moe(self.norm(h)))


def fixed(width: int) -> Net:
    """Only the width grows."""
    return Net(width, 8, width // 2, 2)


def all_scaling(width: int) -> Net:
    """The number of experts and their size grow with width."""
    return Net(width, width // 8, width // 2, width // 32)


def bottleneck(width: int) -> Net:
    """The number of experts grows with width, their size stays."""
    return Net(width, width // 8, 16, width // 32)


def drawn(width: int) -> Net:
    """The same, and the experts' maps back to width start at random."""
    net = bottleneck(width)
    for expert in net.moe.experts:
        expert[2].reset_parameters()
    return net


def more(width: int, experts: int = 8) -> Net:
    """At one width more experts, of which the same share is active."""
    return Net(width, experts, width // 2, experts // 4)


def granular(width: int, experts: int = 8) -> Net:
    """At one width more and smaller experts, of which the same share is active."""
    return Net(width, experts, width * 8 // experts, experts // 4)


def fixed_active(width: int, experts: int = 8) -> Net:
    """At one width more experts, of which as many are active."""
    return Net(width, experts, width // 2, 2)


WIDTHS: dict[str, Any] = {"widths": (64, 128, 256, 512), "base_width": 64}
EXPERTS: dict[str, Any] = {"experts": (8, 16, 32, 64), "base_width": 128}
REGIMES: dict[str, tuple[Callable[..., Net], dict[str, Any], str]] = {
    "width, 8 experts": (fixed, WIDTHS, "sp+moe"),
    "width, number and size of experts": (all_scaling, WIDTHS, "sp+moe"),
    "width and number of experts of 16 units": (bottleneck, WIDTHS, "sp+moe"),
    "the same, maps back drawn": (drawn, WIDTHS, "sp+moe"),
    "experts, a quarter active": (more, EXPERTS, "mup"),
    "finer experts, a quarter active": (granular, EXPERTS, "mup"),
    "experts, 2 active": (fixed_active, EXPERTS, "mup"),
}
RATES = {"adamw": 2**-8, "sgd": 2**-3}


def points() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of points with labels."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(POINTS, INPUTS, generator=draw), torch.arange(POINTS) % CLASSES


def checked(regime: str, scheme: str, optimizer: str, seeds: int) -> dict[str, Any]:
    """A check's outcome, and the slope that decided it, or else the largest."""
    build, sizes, _ = REGIMES[regime]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = paramz.judge(
            paramz.coord_check(
                build, points(), parametrization=scheme, optimizer=optimizer, lr=RATES[optimizer],
                seeds=seeds, **sizes,
            )
        )  # fmt: skip
    shown = next((s for s in judged.slopes if s.passed is False), None)
    if shown is None or judged.passed:
        shown = max((s for s in judged.slopes if s.passed is not None), key=lambda s: abs(s.slope))
    return {
        "regime": regime, "optimizer": optimizer, "scheme": scheme, "outcome": judged.outcome,
        "module": shown.module, "quantity": shown.quantity, "slope": round(shown.slope, 3),
        "lo": round(shown.lo, 3), "hi": round(shown.hi, 3),
    }  # fmt: skip


def main() -> None:
    """All regimes, schemes and optimizers."""
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = []
    for regime, (build, _, without) in REGIMES.items():
        for optimizer in RATES:
            also = ("mup+moe-bottleneck",) if build in (bottleneck, drawn) else ()
            for scheme in ("mup+moe", "mup+moe-readout-router", *also, without):
                rows.append(checked(regime, scheme, optimizer, seeds))
                print(*rows[-1].values(), flush=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
