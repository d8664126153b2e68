"""Step time with all hidden matrices reparametrized over the plain model, and torch's own peers.

The byte-level GPT of overhead.py (about 5M parameters, 24 hidden matrices, 512 tokens a step, fused
AdamW), eager, one thread. Runs alternate in one process; medians of ratios with quartiles.
`naive` is what torch's own tools give: torch's weight_norm, and a compander written with
torch.nn.utils.parametrize. `python benchmarks/reparam.py [--rounds 60] [--only NAME ...]`
"""

import argparse
import statistics
import time
from collections.abc import Callable

import overhead
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import paramz

HIDDEN = r"^blocks\..*weight$"


class NaiveCompander(nn.Module):
    """a arctan(v / b) with learned logarithms, for torch.nn.utils.parametrize."""

    def __init__(self) -> None:
        super().__init__()
        self.log_a, self.log_b = (nn.Parameter(torch.tensor(-1.0)) for _ in range(2))

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        """The weight."""
        return self.log_a.exp() * torch.atan(v / self.log_b.exp())


def stepper(change: Callable[[nn.Module], object]) -> Callable[[], None]:
    """A training step of the model after a change to it."""
    model = overhead.build(overhead.WIDTH)
    change(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    return overhead.stepper(model, optimizer, compiled=False)


def torch_weight_norm(model: nn.Module) -> None:
    for block in model.blocks:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                parametrizations.weight_norm(module)


def torch_compander(model: nn.Module) -> None:
    for block in model.blocks:
        for module in list(block.modules()):
            if isinstance(module, nn.Linear):
                parametrize.register_parametrization(module, "weight", NaiveCompander())


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "plain": lambda model: None,
    "weight norm": lambda m: paramz.reparametrize_(m, paramz.WeightNorm(), HIDDEN),
    "torch weight norm": torch_weight_norm,
    "compander": lambda m: paramz.reparametrize_(m, paramz.Compander(), HIDDEN),
    "compander, fixed": lambda m: paramz.reparametrize_(m, paramz.Compander(learned=False), HIDDEN),
    "compander, naive": torch_compander,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", nargs="+", default=list(CHANGES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = ["plain", *(name for name in arguments.only if name != "plain")]
    runs = {name: stepper(CHANGES[name]) for name in names}
    for step in runs.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(arguments.rounds):
        order = list(runs) if turn % 2 else list(reversed(runs))
        for name in order:
            started = time.process_time()
            runs[name]()
            times[name].append(time.process_time() - started)
    print(f"plain: {1e3 * statistics.median(times['plain']):.0f} ms a step")
    for name in names[1:]:
        ratios = [t / p for t, p in zip(times[name], times["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:18} / plain  median {middle:.3f}  quartiles {low:.3f} {high:.3f}")


if __name__ == "__main__":
    main()
