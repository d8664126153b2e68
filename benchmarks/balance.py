"""Maximum load over mean load of experts that are balanced by a bias, over their number.

A router of sigmoid scores turns while its biases follow by the sign rule of `paramz.moe.balance_`,
on fresh tokens in every step. All rates train side by side. What is measured is the load of 16384
other tokens, so the noise of the batch's own counts is not in it. `python benchmarks/balance.py`:
2 minutes on one core, writes results/balance.csv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

WIDTH, TOKENS, STEPS, SEEDS = 32, 512, 600, 3
TURN = 2**-9  # of a logit per step
EXPERTS = (8, 16, 32, 64)
LOG2_RATES = np.arange(-12, -3)
RESULT = Path(__file__).parent / "results" / "balance.csv"


def tokens(count: int, draw: torch.Generator) -> torch.Tensor:
    """Gaussian ones about a mean, which makes some experts wanted by all."""
    x = torch.randn(count, WIDTH, generator=draw)
    x[:, 0] += 2.0
    return x / x.square().mean(1, keepdim=True).sqrt()


def loads(scores: torch.Tensor, biases: torch.Tensor, top_k: int) -> torch.Tensor:
    """How many tokens each expert gets, (rates, experts)."""
    chosen = (scores + biases[:, None]).topk(top_k, dim=-1).indices
    ones = torch.ones(1).expand(chosen.flatten(1).shape)
    return torch.zeros_like(biases).scatter_add_(1, chosen.flatten(1), ones)


def violation(experts: int, top_k: int, seed: int) -> np.ndarray:
    """Maximum over mean load, per rate: its mean over the second half of the run."""
    draw = torch.Generator().manual_seed(seed)
    weight, turn = (torch.randn(experts, WIDTH, generator=draw) / WIDTH**0.5 for _ in range(2))
    rates = torch.tensor(2.0**LOG2_RATES, dtype=torch.float32)[:, None]
    biases = torch.zeros(len(rates), experts)
    found = []
    held = tokens(16384, draw)
    for step in range(STEPS):
        moved = weight + TURN * step * turn
        scores = (tokens(TOKENS, draw) @ moved.T).sigmoid().expand(len(rates), -1, -1)
        load = loads(scores, biases, top_k)
        biases += rates * (load.mean(1, keepdim=True) - load).sign()
        if step >= STEPS // 2 and step % 50 == 0:
            judged = [loads((held @ moved.T).sigmoid()[None], b[None], top_k)[0] for b in biases]
            found.append([float(load.max() / load.mean()) for load in judged])
    return np.mean(found, 0)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for experts in EXPERTS:
        for kind, top_k in (("fixed number", 2), ("fixed share", experts // 4)):
            for seed in range(SEEDS):
                for log2, value in zip(LOG2_RATES, violation(experts, top_k, seed), strict=True):
                    rows.append((kind, experts, top_k, seed, 2.0**log2, round(value, 4)))
    frame = pd.DataFrame(rows, columns=["kind", "experts", "top_k", "seed", "rate", "max_load"])
    frame.to_csv(RESULT, index=False)
    means = frame.groupby(["kind", "experts", "rate"]).max_load.mean().unstack("rate")
    print(means.round(2).to_string())
    for kind, part in means.groupby(level="kind"):
        for tuned in (-10, -6):
            for power in (0, 1 / 6, -1 / 2):
                told = [round(scaled(part.loc[kind], e, kind, tuned, power), 2) for e in EXPERTS]
                print(f"{kind}, 2^{tuned} at 8 experts, (experts / top_k)^{power:.2f}: {told}")


def scaled(means: pd.DataFrame, experts: int, kind: str, tuned: int, power: float) -> float:
    """The load at the rate that a rule takes from 8 experts to more, between measured rates."""
    share = experts / 2 if kind == "fixed number" else 4
    log2 = tuned + power * np.log2(share / 4)
    return float(np.interp(log2, LOG2_RATES, means.loc[experts]))


if __name__ == "__main__":
    main()
