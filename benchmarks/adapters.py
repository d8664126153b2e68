"""The best learning rate of adapters over their rank: under `lora`, without a rule, with one rate.

A residual network learns one teacher, then adapters on its hidden maps another, on fresh data. All
learning rates and seeds train side by side, so it is plain tensors here, with the rates that the
table gives. `python benchmarks/adapters.py`: 20 minutes on one core, writes results/adapters.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

import paramz

WIDTH, INPUTS, CLASSES, BATCH, STEPS, SEEDS, BASE = 64, 16, 8, 64, 150, 2, 8
RANKS = (2, 4, 8, 16, 32, 64)
# Start of the factors, scaling, policy, and the grid of log2 lr.
CASES = (
    ("random B", "1", "lora", (-12, -4)),
    ("random B", "1", "none", (-12, -4)),
    ("random A", "1", "none", (-10, -3)),
    ("random A", "1", "lora", (-10, -3)),
    ("random A", "1", "one rate", (-10, -3)),
    ("random A", "rank^-1/2", "none", (-10, -3)),
    ("random A", "rank^-1/2", "lora", (-10, -3)),
)
RESULT = Path(__file__).parent / "results" / "adapters.csv"


def teacher(second: bool):
    draw = torch.Generator().manual_seed(1)
    a = torch.randn(INPUTS, 64, generator=draw) / INPUTS**0.5
    b = torch.randn(64, CLASSES, generator=draw) / 2
    if second:
        a = 0.8 * a + 0.6 * torch.randn(INPUTS, 64, generator=draw.manual_seed(2)) / INPUTS**0.5
    return lambda x: (torch.tanh(x @ a * 2) @ b).argmax(-1)


def data(seed: int, step: int, second: bool) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed * 100003 + step)
    x = torch.randn(BATCH, INPUTS, generator=draw)
    return x, teacher(second)(x)


def forward(weights, x, adapters=(), scaling: float = 1.0):
    def norm(h):
        return F.layer_norm(h, h.shape[-1:])

    h = (x @ weights[0]).relu()
    for i, weight in enumerate(weights[1:-1]):
        z = norm(h)
        out = z @ weight
        if adapters:
            out = out + scaling * (z @ adapters[i][0]) @ adapters[i][1]
        h = h + out.relu()
    return norm(h) @ weights[-1]


def pretrained(seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    shapes = [(INPUTS, WIDTH), *[(WIDTH, WIDTH)] * 3]
    weights = [torch.randn(shape) / shape[0] ** 0.5 for shape in shapes]
    weights = [w.requires_grad_() for w in (*weights, torch.randn(WIDTH, CLASSES) / WIDTH)]
    optimizer = torch.optim.Adam(weights, 2e-3)
    for step in range(600):
        x, y = data(seed + 50, step, second=False)
        optimizer.zero_grad()
        F.cross_entropy(forward(weights, x), y).backward()
        optimizer.step()
    return [w.detach() for w in weights]


def up_std(rank: int, scaling: float, policy: str) -> float:
    """Of a random B: as the base's by the table, and rank^-1/2 without a rule."""
    if policy != "lora":
        return rank**-0.5 / scaling
    init = paramz.parametrization("lora").rule("adam", "outward").init_std
    return BASE**-0.5 * init({"rank": rank / BASE, "scaling": scaling})


def factors(
    rank: int, start: str, scaling: float, policy: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One pair for each of three layers, with a first axis of seeds."""
    pairs = []
    for layer in range(3):
        draws = [torch.Generator().manual_seed(7 * seed + layer) for seed in range(SEEDS)]
        down, up = torch.zeros(SEEDS, WIDTH, rank), torch.zeros(SEEDS, rank, WIDTH)
        for seed, draw in enumerate(draws):
            if start == "random A":
                down[seed].uniform_(-(WIDTH**-0.5), WIDTH**-0.5, generator=draw)
            else:
                up[seed].normal_(0, up_std(rank, scaling, policy), generator=draw)
        pairs.append((down, up))
    return pairs


def rates(policy: str, start: str, ratios: dict[str, float]) -> tuple[float, float]:
    """What the base's rate is multiplied by for A and for B."""
    if policy == "none":
        return 1.0, 1.0
    if policy == "one rate":
        one = (ratios["rank"] * ratios["scaling"]) ** -0.5
        return one, one
    table = paramz.parametrization("lora")
    down = "latent" if start == "random A" else "inward"
    lrs = [table.rule("adam", role).lr(ratios) for role in (down, "outward")]
    return lrs[0], lrs[1]


def side_by_side(
    lrs: np.ndarray, trained: Sequence[tuple[torch.Tensor, float]], forward: Callable
) -> np.ndarray:
    """Adam at all learning rates and seeds at once: mean loss of the last 50 steps.

    Args:
        lrs: log2 of the rates.
        trained: what it trains, (seeds x rates, ...), and the factor on its rate.
        forward: (seeds x rates, points, inputs) -> logits.

    Returns:
        (seeds, rates)
    """
    lr = torch.tensor(2.0 ** np.asarray(lrs), dtype=torch.float32).repeat(SEEDS)
    state = []
    for p, own in trained:
        rate = (lr * own).view(-1, *[1] * (p.dim() - 1))
        state.append((p, torch.zeros_like(p), torch.zeros_like(p), rate))
    total = torch.zeros(len(lr))
    for step in range(1, STEPS + 1):
        batches = [data(seed, step - 1, second=True) for seed in range(SEEDS)]
        x, y = (
            torch.stack(part).repeat_interleave(len(lrs), 0) for part in zip(*batches, strict=True)
        )
        loss = F.cross_entropy(forward(x).flatten(0, 1), y.flatten(), reduction="none")
        loss = loss.view(len(lr), BATCH).mean(1)
        for p, *_ in state:
            p.grad = None
        loss.sum().backward()
        with torch.no_grad():
            for p, mean, square, rate in state:
                mean.lerp_(p.grad, 0.1)
                square.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                root = (square / (1 - 0.999**step)).sqrt() + 1e-12
                p.sub_(rate * (mean / (1 - 0.9**step)) / root)
        if step > STEPS - 50:
            total += loss.detach() / 50
    return total.view(SEEDS, len(lrs)).numpy()


def losses(nets, rank: int, start: str, kind: str, policy: str, lrs) -> np.ndarray:
    """Mean loss of the last 50 steps, (seeds, learning rates)."""
    scaling = {"1": 1.0, "rank^-1/2": rank**-0.5}[kind]
    at_base = {"1": 1.0, "rank^-1/2": BASE**-0.5}[kind]
    weights = [torch.stack(w).repeat_interleave(len(lrs), 0) for w in zip(*nets, strict=True)]
    pairs = [
        tuple(f.repeat_interleave(len(lrs), 0).requires_grad_() for f in pair)
        for pair in factors(rank, start, scaling, policy)
    ]
    own = rates(policy, start, {"rank": rank / BASE, "scaling": scaling / at_base})
    trained = [(p, k) for pair in pairs for p, k in zip(pair, own, strict=True)]
    return side_by_side(lrs, trained, lambda x: forward(weights, x, pairs, scaling))


def optimum(lrs: np.ndarray, losses: np.ndarray) -> float:
    """The vertex of the parabola through the best point and its neighbours, in log2 lr."""
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    if best in (0, len(lrs) - 1):
        return float(lrs[best])
    a, b, _ = np.polyfit(lrs[best - 1 : best + 2], losses[best - 1 : best + 2], 2)
    return float(np.clip(-b / (2 * a), lrs[best - 1], lrs[best + 1]))


def main() -> None:
    torch.set_num_threads(1)
    nets = [pretrained(seed) for seed in range(SEEDS)]
    rows = []
    for start, kind, policy, (low, high) in CASES:
        lrs = np.arange(low, high + 1)
        for rank in RANKS:
            for seed, found in enumerate(losses(nets, rank, start, kind, policy, lrs)):
                best, loss = round(optimum(lrs, found), 3), round(float(np.nanmin(found)), 4)
                rows.append((start, kind, policy, rank, seed, best, loss))
        columns = ["start", "scaling", "policy", "rank", "seed", "log2_lr", "loss"]
        frame = pd.DataFrame(rows, columns=columns)
        frame.to_csv(RESULT, index=False)
        case = frame[frame.policy.eq(policy) & frame.start.eq(start) & frame.scaling.eq(kind)]
        x, y = np.log2(case["rank"]), case.log2_lr
        (slope, at_one), cov = np.polyfit(x, y, 1, cov=True)
        print(f"{start}, s = {kind}, {policy}: {slope:+.2f} +- {2.23 * cov[0, 0] ** 0.5:.2f} "
              f"octaves per doubling of the rank, {at_one:.1f} at 1", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
