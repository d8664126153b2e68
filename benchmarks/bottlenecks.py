"""The coordinate check at its defaults on models with sizes inside that stay while the width grows.

python benchmarks/bottlenecks.py                       # all of them, 64 to 512 and 128 to 1024
python benchmarks/bottlenecks.py Qwen3 --span 64       # those of a name, from 64 on
python benchmarks/bottlenecks.py --schemes mup mup+bottleneck-readout

Writes one row per check to benchmarks/results/bottlenecks.csv (other rows stay).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))


import torch  # noqa: E402
import zoo_fixed  # noqa: E402
from _kept import keep  # noqa: E402
from torch import nn  # noqa: E402
from zoo_hf import causal  # noqa: E402

import paramz  # noqa: E402

RESULTS = HERE / "results" / "bottlenecks.csv"
KEYS = ["model", "scheme", "widths"]


class Normed(nn.Module):
    """A residual branch through sixteen channels, normed where they are few."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.down = nn.Linear(16, width), nn.Linear(width, 16, bias=False)
        self.norm, self.back = nn.LayerNorm(16), nn.Linear(16, width, bias=False)
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        h = torch.tanh(self.first(x))
        return self.head(torch.relu(self.hidden(h + self.back(self.norm(self.down(h))))))


class ThinExperts(nn.Module):
    """Eight experts of sixteen hidden units, two of which see a point."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 10)
        self.gate = nn.Linear(width, 8, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 16, bias=False), nn.ReLU(), nn.Linear(16, width, bias=False)
            )
            for _ in range(8)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        h = torch.relu(self.first(x))
        top, index = self.gate(h).softmax(-1).topk(2, -1)
        share = torch.zeros(len(h), 8).scatter(-1, index, top / top.sum(-1, keepdim=True))
        mixed = sum(share[:, i : i + 1] * expert(h) for i, expert in enumerate(self.experts))
        return self.head(h + mixed)


def points() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of points with labels."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(128, 16, generator=draw), torch.arange(128) % 10


MODELS: dict[str, tuple[Any, Any]] = {
    "Normed bottleneck": (Normed, points),
    "Thin experts": (ThinExperts, points),
    "Llama, fixed keys": (zoo_fixed.llama, causal),
    "Qwen3, fixed keys": (zoo_fixed.qwen3, causal),
    "DeepSeek-V3, fixed ranks": (zoo_fixed.deepseek, causal),
}


def checked(name: str, scheme: str, first: int) -> dict[str, Any]:
    """The verdict on one model over four widths."""
    build, batch = MODELS[name]
    widths = [first * 2**k for k in range(4)]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        df = paramz.coord_check(build, batch(), widths=widths, parametrization=scheme)
        verdict = paramz.judge(df)
    shown = next((s for s in verdict.slopes if s.passed is False), None)
    if shown is None or verdict.passed:
        judged = [s for s in verdict.slopes if s.passed is not None]
        shown = max(judged, key=lambda s: abs(s.slope))
    return {
        "model": name, "scheme": scheme, "widths": f"{widths[0]} to {widths[-1]}",
        "outcome": verdict.outcome, "module": shown.module, "quantity": shown.quantity,
        "step": shown.step, "slope": round(shown.slope, 3), "lo": round(shown.lo, 3),
        "hi": round(shown.hi, 3), "cpu_s": round(time.process_time() - start),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="coordinate checks on models with bottlenecks")
    parser.add_argument("names", nargs="*", help="parts of the names of models")
    parser.add_argument("--span", type=int, nargs="+", default=[64, 128], help="first widths")
    parser.add_argument("--schemes", nargs="+", default=["mup"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for first in args.span:
        for model in MODELS:
            if args.names and not any(part.lower() in model.lower() for part in args.names):
                continue
            for scheme in args.schemes:
                found = checked(model, scheme, first)
                keep(found, RESULTS, KEYS)
                print(*found.values(), sep=" | ", flush=True)
