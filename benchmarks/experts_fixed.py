"""More experts of which two are active: what SGD's first step does, and the best learning rates.

python benchmarks/experts_fixed.py step
python benchmarks/experts_fixed.py check
python benchmarks/experts_fixed.py rates sgd|adamw

Writes benchmarks/results/experts_fixed_*.csv, for docs/parametrizations.md ("More experts"). The
network is that of benchmarks/experts.py. Labels are drawn, or a teacher tells them from the inputs.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from experts import CLASSES, INPUTS, RATES, fixed_active
from torch.nn.functional import cross_entropy

import paramz

RESULTS = Path(__file__).parent / "results"
WIDTH, BASE, NUMBERS = 128, 8, (8, 16, 32, 64)
STEPS, BATCH, SEEDS = 200, 256, 2
# Powers of two, and the exponents of the number of experts that SGD's rate was tried with.
GRIDS = {"sgd": range(-3, 4), "adamw": range(-11, -4)}
EXPONENTS = {"sgd": (1.0, 0.5, 0.0), "adamw": (0.0,)}


def teacher() -> Callable[[torch.Tensor], torch.Tensor]:
    """A fixed network of one hidden layer: points -> labels."""
    draw = torch.Generator().manual_seed(1)
    first, second = (
        torch.randn(INPUTS, 64, generator=draw) / 4,
        torch.randn(64, CLASSES, generator=draw),
    )
    return lambda x: ((x @ first).relu() @ second).argmax(-1)


def first_step(number: int, points: int, learned: bool, seed: int) -> tuple[float, float]:
    """How far SGD's step at lr * experts moves the mixture: on points of its batch, and others."""
    torch.manual_seed(seed)
    net, draw = fixed_active(WIDTH, number), torch.Generator().manual_seed(seed + 10)
    x, other = (torch.randn(n, INPUTS, generator=draw) for n in (points, 1024))
    labels = teacher()(x) if learned else torch.randint(0, CLASSES, (points,), generator=draw)

    def put_out(at: torch.Tensor) -> torch.Tensor:
        return net.moe(net.norm(torch.tanh(net.first(at))))

    parameters = list(net.moe.parameters())
    gradients = torch.autograd.grad(cross_entropy(net(x), labels), parameters)
    with torch.no_grad():
        before = [put_out(at) for at in (x[:1024], other)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient * number / BASE * 2**-3)
        moved = [put_out(at) - was for at, was in zip((x[:1024], other), before, strict=True)]
    own, fresh = (float(each.square().mean().sqrt()) for each in moved)
    return own, fresh


def steps() -> None:
    """Exponents of the number of experts in the size of the first step."""
    rows = []
    for learned in (False, True):
        for points in (256, 2048, 16384, None):
            found = [
                [first_step(n, points or 32 * n, learned, seed) for seed in range(3)]
                for n in NUMBERS
            ]
            means = [[sum(part) / 3 for part in zip(*seeds, strict=True)] for seeds in found]
            octaves = math.log2(NUMBERS[-1] / NUMBERS[0])
            own, fresh = (math.log2(means[-1][i] / means[0][i]) / octaves for i in (0, 1))
            labels = "a teacher's" if learned else "drawn"
            rows.append(
                {"labels": labels, "points": points or "32 experts", "own": own, "others": fresh}
            )
            print(*rows[-1].values(), flush=True)
    pd.DataFrame(rows).round(3).to_csv(RESULTS / "experts_fixed_step.csv", index=False)


def checks() -> None:
    """Coordinate checks as in benchmarks/experts.py, but with a teacher's labels."""
    rows = []
    x = torch.randn(BATCH, INPUTS, generator=torch.Generator().manual_seed(0))
    for optimizer, scheme in itertools.product(RATES, ("mup+moe", "mup")):
        judged = paramz.judge(
            paramz.coord_check(
                fixed_active, (x, teacher()(x)), parametrization=scheme, optimizer=optimizer,
                lr=RATES[optimizer], seeds=3, experts=NUMBERS, base_width=WIDTH,
            )
        )  # fmt: skip
        moved = [s.slope for s in judged.slopes if (s.module, s.quantity) == ("moe", "delta")]
        rows.append(
            {"optimizer": optimizer, "scheme": scheme, "outcome": judged.outcome}
            | {"moe delta": max(moved, key=abs)}
        )
        print(*rows[-1].values(), flush=True)
    pd.DataFrame(rows).round(3).to_csv(RESULTS / "experts_fixed_check.csv", index=False)


def trained(number: int, lr: float, seed: int, optimizer: str, exponent: float) -> float:
    """The loss on fresh points after some steps on fresh batches."""
    torch.manual_seed(seed)
    net, base = fixed_active(WIDTH, number), fixed_active(WIDTH, BASE)
    plan = paramz.parametrize_(net, "mup+moe", base=base, wider=fixed_active(2 * WIDTH, BASE))
    groups: Any = plan.param_groups(net, optimizer, lr=lr, split="tensor")
    own = {id(parameter) for parameter in net.moe.parameters()}
    for group in groups if optimizer == "sgd" else ():
        if id(group["params"][0]) in own:
            group["lr"] *= (number / BASE) ** (exponent - 1.0)
    stepper = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.AdamW(groups)
    draw, label = torch.Generator().manual_seed(100 + seed), teacher()
    for _ in range(STEPS):
        x = torch.randn(BATCH, INPUTS, generator=draw)
        stepper.zero_grad()
        loss = cross_entropy(net(x), label(x))
        loss.backward()
        stepper.step()
        if not math.isfinite(loss.item()):
            return math.inf
    x = torch.randn(2048, INPUTS, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return cross_entropy(net(x), label(x)).item()


def rates(optimizer: str) -> None:
    """Best learning rates over the number of experts, by the vertex of a parabola."""
    rows, grid = [], list(GRIDS[optimizer])
    for exponent in EXPONENTS[optimizer]:
        for number in NUMBERS:
            losses = [
                sum(trained(number, 2.0**g, s, optimizer, exponent) for s in range(SEEDS)) / SEEDS
                for g in grid
            ]
            i = min(range(len(grid)), key=losses.__getitem__)
            best = float(grid[i])
            if 0 < i < len(grid) - 1 and all(map(math.isfinite, losses[i - 1 : i + 2])):
                left, middle, right = losses[i - 1 : i + 2]
                best += 0.5 * (left - right) / (left - 2 * middle + right)
            rows.append(
                {"optimizer": optimizer, "exponent": exponent, "experts": number, "best": best}
                | {f"2^{g}": loss for g, loss in zip(grid, losses, strict=True)}
            )
            print(*rows[-1].values(), flush=True)
    pd.DataFrame(rows).round(3).to_csv(RESULTS / f"experts_fixed_{optimizer}.csv", index=False)


def main() -> None:
    """What the command line asks for."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if sys.argv[1] == "rates":
        rates(sys.argv[2])
    else:
        {"step": steps, "check": checks}[sys.argv[1]]()


if __name__ == "__main__":
    main()
