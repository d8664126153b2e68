"""A learned optimizer meta-trained on narrow models, used on wide ones: muP against SP.

The MLP on digits. Meta-training sees the base width and twice that; the table shows the loss that
the optimizer reaches on models up to 8 times the widest it was trained on, after as many steps as
in meta-training and after four times that.

    python benchmarks/mulo.py [meta-iterations, default 300] [meta-seeds, default 2]
"""

import sys
import time
from pathlib import Path

import torch

from paramz.optim.learned.meta import meta_train, parametrized, unrolled

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))
from train_mlp import task

META_WIDTHS = (16, 32)
WIDTHS = (16, 32, 64, 128, 256)
UNROLL = 30
LR = 0.01
MODELS = 3


def losses(scheme: str, width: int, theta: torch.Tensor) -> tuple[float, float]:
    """Loss after UNROLL and after 4 UNROLL steps, mean of the last five and over models."""
    digits = task({})
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
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    torch.set_num_threads(1)
    head = "".join(f"{f'width {w}':>16}" for w in WIDTHS)
    print(
        f"loss after {UNROLL} / {4 * UNROLL} steps; meta-trained at {META_WIDTHS}\n{'':<12}{head}"
    )
    for seed in range(seeds):
        for scheme in ("mup", "sp"):
            start = time.perf_counter()
            theta = meta_train(
                task({}),
                scheme,
                widths=META_WIDTHS,
                base_width=META_WIDTHS[0],
                unroll=UNROLL,
                iterations=iterations,
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
