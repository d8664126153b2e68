"""Step time of a folded-muP model over the plain model with the same fused AdamW, and mup's own.

Alternating runs in one process, one thread; prints the median ratio with its quartiles, eager and
compiled. The model is the byte-level GPT of sweeps/train_lm.py (about 5M parameters at width 256,
6 blocks). `python benchmarks/overhead.py [--rounds 40] [--no-compile]`
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import paramz

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))
import train_lm  # noqa: E402

WIDTH, BASE, DEPTH, BATCH, CONTEXT = 256, 64, 6, 8, 64


def build(width: int) -> torch.nn.Module:
    """The GPT at a width."""
    return train_lm.GPT(width, depth=DEPTH, context=CONTEXT)


def stepper(model: torch.nn.Module, optimizer: Any, compiled: bool) -> Callable[[], None]:
    """One training step on a fixed batch."""
    x, y = train_lm.batch_of(None, BATCH, CONTEXT, 0)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        logits = forward(x)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain(compiled: bool) -> Callable[[], None]:
    """The model as it is, fused AdamW, one group."""
    model = build(WIDTH)
    return stepper(model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), compiled)


def folded(compiled: bool) -> Callable[[], None]:
    """The same model under muP, folded."""
    model = build(WIDTH)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=BASE)
    groups = plan.param_groups(model, "adamw", lr=1e-4)
    return stepper(model, torch.optim.AdamW(groups, fused=True), compiled)


def peer(compiled: bool) -> Callable[[], None] | None:
    """microsoft/mup: MuReadout and MuAdamW, on a copy of the model that calls it."""
    try:
        import mup
    except ImportError:
        return None

    def build_mup(width: int) -> torch.nn.Module:
        model = build(width)
        model.readout = mup.MuReadout(width, 256, bias=False)
        return model

    model = build_mup(WIDTH)
    mup.set_base_shapes(model, build_mup(BASE), delta=build_mup(2 * BASE))
    return stepper(model, mup.MuAdamW(model.parameters(), lr=1e-4, fused=True), compiled)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for compiled in [False] if arguments.no_compile else [False, True]:
        steps = {"plain": plain(compiled), "paramz": folded(compiled), "mup": peer(compiled)}
        runs = {name: step for name, step in steps.items() if step is not None}
        for step in runs.values():
            for _ in range(3):
                step()
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(arguments.rounds):
            order = list(runs) if turn % 2 else list(reversed(runs))
            for name in order:
                started = time.process_time()
                for _ in range(3):
                    runs[name]()
                times[name].append(time.process_time() - started)
        for name in list(runs)[1:]:
            ratios = [t / p for t, p in zip(times[name], times["plain"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            kind = "compiled" if compiled else "eager"
            print(f"{kind:9}{name:7} / plain  median {middle:.3f}  quartiles {low:.3f} {high:.3f}")


if __name__ == "__main__":
    main()
