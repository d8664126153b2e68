"""The best learning rate over the density of static masks: under `mup+s-mup`, and without a rule.

An MLP on digits whose two hidden matrices have random masks that keep as many inputs for every
output. `python benchmarks/sparsity.py [STEPS]`: 2 minutes on one core, writes results/sparsity.csv
and prints the drift in octaves per doubling of the density.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import paramz
from paramz.analysis import transfer

WIDTH, BATCH, SEEDS = 256, 64, 2
DENSITIES = (1.0, 0.5, 0.25, 0.125, 0.0625)
LOG2_LRS = range(-11, -3)
RESULT = Path(__file__).parent / "results" / "sparsity.csv"


def build(width: int, density: float = 1.0) -> nn.Module:
    """Three hidden layers, of which two have masks."""
    layers = [nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, width)]
    for layer in layers[1:]:
        if density < 1:
            mask = torch.rand(width, width).argsort(1) < round(density * width)
            prune.custom_from_mask(layer, "weight", mask)
    hidden = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def loss_of(scheme: str, density: float, lr: float, seed: int, steps: int, data) -> float:
    """The loss on all images after training, with a linear fall of the rate."""
    x, y = data
    torch.manual_seed(seed)
    model = build(WIDTH, density)
    # Without a rule for density the base has the same masks, so muP changes nothing.
    base = build if "s-mup" in scheme else lambda width: build(width, density)
    plan = paramz.parametrize_(model, scheme, base=base, base_width=WIDTH)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=lr, weight_decay=0.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        picked = torch.randint(len(x), (BATCH,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(model(x[picked]), y[picked]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float(F.cross_entropy(model(x), y))


def main() -> None:
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32)
    data = (x - x.mean()) / x.std(), torch.tensor(classes)
    rows = [
        (scheme, density, 2.0**log2, seed, loss_of(scheme, density, 2.0**log2, seed, steps, data))
        for scheme in ("mup", "mup+s-mup")
        for density in DENSITIES
        for log2 in LOG2_LRS
        for seed in range(SEEDS)
    ]
    frame = pd.DataFrame(rows, columns=["parametrization", "density", "lr", "seed", "loss"])
    frame.to_csv(RESULT, index=False, float_format="%.5g")
    found = transfer(frame, scale="density")
    print(found.optima.to_string(), *found.verdicts.values(), sep="\n")


if __name__ == "__main__":
    main()
