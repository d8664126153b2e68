"""A learned optimizer that is meta-trained on narrow models and used on wide ones: muP against SP.

The task is the MLP on digits. Meta-training sees the base width and twice that. The table shows the
loss that the optimizer reaches on models up to 8 times the widest of these, after as many steps as
in meta-training and after four times as many.

    python benchmarks/mulo.py [meta-iterations, default 300] [meta-seeds, default 2]
"""

from __future__ import annotations

import argparse
import time

import torch
from _tasks import train_mlp

from paramz.optim import meta_train
from paramz.optim.learned.meta import parametrized, unrolled

META_WIDTHS = (16, 32)
WIDTHS = (16, 32, 64, 128, 256)
UNROLL = 30
LR = 0.01
MODELS = 3


def losses(scheme: str, width: int, theta: torch.Tensor) -> tuple[float, float]:
    """Loss after UNROLL and after 4 UNROLL steps: means over the last five, and over models."""
    digits = train_mlp.task({})
    ends = []
    for seed in range(MODELS):
        torch.manual_seed(1000 + seed)
        model, ratios = parametrized(digits, scheme, width, META_WIDTHS[0])
        lrs = {name: LR * ratio for name, ratio in ratios.items()}
        curve = unrolled(digits, model, lrs, theta[None], 4 * UNROLL, first=10**7 + 1000 * seed)
        ends.append([curve[UNROLL - 5 : UNROLL].mean(), curve[-5:].mean()])
    short, long = torch.tensor(ends).mean(0).tolist()
    return short, long


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("iterations", type=int, nargs="?", default=300)
    command.add_argument("seeds", type=int, nargs="?", default=2)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    head = "".join(f"{f'width {w}':>16}" for w in WIDTHS)
    print(
        f"loss after {UNROLL} / {4 * UNROLL} steps; meta-trained at {META_WIDTHS}\n{'':<12}{head}"
    )
    for seed in range(arguments.seeds):
        for scheme in ("mup", "sp"):
            start = time.perf_counter()
            theta = meta_train(
                train_mlp.task({}),
                scheme,
                widths=META_WIDTHS,
                base_width=META_WIDTHS[0],
                unroll=UNROLL,
                iterations=arguments.iterations,
                pairs=4,
                lr=LR,
                seed=seed,
            )
            cells = "".join(
                f"{'{:.3f} / {:.3f}'.format(*losses(scheme, w, theta)):>16}" for w in WIDTHS
            )
            took = time.perf_counter() - start
            print(f"{scheme:<4} seed {seed} {cells}   ({took:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
