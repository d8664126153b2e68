"""The best learning rate of paramz.adapters over their rank, on a byte-level GPT.

It is trained on the first half of a text and adapted to the second, by AdamW, under `lora` and
without a rule. `python benchmarks/adapters_gpt.py`: 10 minutes on one core, writes
results/adapters_gpt.csv.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from _tasks import train_lm
from adapters import optimum

import paramz
from paramz.adapters import SVFT, MoS, ShareLoRA, attach_

WIDTH, DEPTH, CONTEXT, BATCH, TRAINED, STEPS, LAST, SEEDS, BASE = 64, 4, 64, 8, 1500, 60, 20, 2, 8
RANKS = (2, 8, 32)
# The adapter at a rank, and the grid of log2 lr.
KINDS = {
    "ShareLoRA": (ShareLoRA, (-11, -3)),
    "MoS": (lambda rank: MoS(rank, max(1, rank // 2), shards=2), (-11, -3)),
    "SVFT": (SVFT, (-10, -2)),
}
RESULT = Path(__file__).parent / "results" / "adapters_gpt.csv"


def batch(seed: int, step: int, second: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes of one half of the text, and those that follow them."""
    data = train_lm.text(None)
    half = data[len(data) // 2 :] if second else data[: len(data) // 2]
    draw = torch.Generator().manual_seed((seed << 32) + step)
    starts = torch.randint(len(half) - CONTEXT - 1, (BATCH,), generator=draw)
    window = half[starts[:, None] + torch.arange(CONTEXT + 1)].long()
    return window[:, :-1], window[:, 1:]


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int) -> float:
    """Mean loss of the last steps; adapters see the second half."""
    second = steps == STEPS
    total = 0.0
    for step in range(steps):
        x, y = batch(seed, step, second)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) / LAST if step >= steps - LAST else 0.0
    return total


def adapted(plain: torch.nn.Module, kind: str, rank: int, seed: int) -> torch.nn.Module:
    model = copy.deepcopy(plain)
    torch.manual_seed(seed)
    attach_(model, KINDS[kind][0](rank), "blocks")
    return model


def loss_at(plain: torch.nn.Module, policy: str, at: tuple[str, int, int], lr: float) -> float:
    kind, rank, seed = at
    model = adapted(plain, kind, rank, seed)
    if policy == "lora":
        plan = paramz.parametrize_(model, "lora", base=adapted(plain, kind, BASE, seed))
        groups = plan.param_groups(model, "adamw", lr=lr, weight_decay=0.0)
    else:
        groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    return train(model, torch.optim.AdamW(groups, lr=lr, weight_decay=0.0), seed, STEPS)


def main() -> None:
    torch.set_num_threads(1)
    nets = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        nets.append(train_lm.GPT(WIDTH, depth=DEPTH, context=CONTEXT))
        start = torch.optim.AdamW(nets[-1].parameters(), lr=2**-8)
        print(f"trained to {train(nets[-1], start, seed, TRAINED):.3f}", file=sys.stderr)
    rows = []
    for kind, (_, (low, high)) in KINDS.items():
        for policy in ("lora", "none"):
            for rank in RANKS:
                for seed, plain in enumerate(nets):
                    lrs = np.arange(low, high + 1)
                    at = kind, rank, seed
                    found = np.array([loss_at(plain, policy, at, 2.0**lr) for lr in lrs])
                    best, loss = round(optimum(lrs, found), 3), round(float(np.nanmin(found)), 4)
                    rows.append((kind, policy, rank, seed, best, loss))
            columns = ["kind", "policy", "rank", "seed", "log2_lr", "loss"]
            frame = pd.DataFrame(rows, columns=columns)
            frame.to_csv(RESULT, index=False)
            case = frame[frame.policy.eq(policy) & frame.kind.eq(kind)]
            (slope, _), cov = np.polyfit(np.log2(case["rank"]), case.log2_lr, 1, cov=True)
            print(f"{kind}, {policy}: {slope:+.2f} +- {2.78 * cov[0, 0] ** 0.5:.2f} octaves per "
                  "doubling of the rank", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
