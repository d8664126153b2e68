"""Step time with all hidden matrices reparametrized over the plain model, and torch's own peers.

The byte-level GPT (24 hidden matrices) with fused AdamW, eager, on one thread. Steps alternate in
one process; medians of ratios of CPU times with quartiles. "naive" is what torch's own tools give:
a compander written with torch.nn.utils.parametrize, beside torch's own weight_norm.

    python benchmarks/reparam.py [--rounds 60] [--only NAME ...]
    python benchmarks/reparam.py --passes 4 --rounds 12     # of so many passes
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext

import torch
from _tasks import BATCH, CONTEXT, WIDTH, gpt, steps, train_lm
from _timing import alternate, parser, ratios, tell
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
    model = gpt(WIDTH)
    change(model)
    return steps(model, [torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)])


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]


def torch_weight_norm(model: nn.Module) -> None:
    for module in linear_layers(model):
        parametrizations.weight_norm(module)


def torch_compander(model: nn.Module) -> None:
    for module in linear_layers(model):
        parametrize.register_parametrization(module, "weight", NaiveCompander())


def bare_compander(learned: bool) -> Callable[[], None]:
    """The plain step, and beside it nothing but the kernels of companders of that many weights."""
    step = stepper(lambda model: None)
    weights = [module.weight.detach().clone() for module in linear_layers(gpt(WIDTH))]
    b, grads = torch.tensor(0.1), [torch.randn_like(weight) for weight in weights]

    def run() -> None:
        step()
        for v, grad in zip(weights, grads, strict=True):
            w = torch.atan2(v, b).mul_(b)
            dv = torch.addcmul(b, v, v, value=100.0)
            torch.div(grad, dv, out=dv)
            if learned:
                torch.dot(grad.view(-1), w.view(-1))
                torch.dot(dv.view(-1), v.view(-1))

    return run


def accumulating(
    change: Callable[[nn.Module], object], passes: int, *, once: bool
) -> Callable[[], None]:
    """A training step of several passes, in which weights are computed in each, or once."""
    model = gpt(WIDTH)
    change(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batches = [train_lm.batch_of(None, BATCH, CONTEXT, 0, step) for step in range(passes)]

    def run() -> None:
        with paramz.reparam.computed_once(model) if once else nullcontext():
            for x, y in batches:
                loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
                (loss / passes).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "plain": lambda model: None,
    "weight norm": lambda m: paramz.reparametrize_(m, paramz.WeightNorm(), HIDDEN),
    "torch weight norm": torch_weight_norm,
    "compander": lambda m: paramz.reparametrize_(m, paramz.Compander(), HIDDEN),
    "compander, fixed": lambda m: paramz.reparametrize_(m, paramz.Compander(learned=False), HIDDEN),
    "compander, naive": torch_compander,
}
KERNELS = {"compander, its kernels alone": True, "compander, fixed, its kernels alone": False}
GOALS = {"weight norm": "torch's or below", "compander": "1.06", "compander, fixed": "1.06"}


def of_passes(passes: int, rounds: int) -> None:
    """Measure and print steps of several passes."""
    runs = {
        f"{name}{', computed once' if once else ''}": accumulating(CHANGES[name], passes, once=once)
        for name in ("plain", "weight norm", "compander")
        for once in ((False,) if name == "plain" else (False, True))
    }
    times = alternate(runs, rounds, warm_up=2)
    for name in list(runs)[1:]:
        tell(f"step of {passes} passes with {name}", "plain", ratios(times, name, "plain"), "")


def main() -> None:
    """Measure and print."""
    command = parser(__doc__, rounds=60)
    command.add_argument("--only", nargs="+", default=[*CHANGES, *KERNELS])
    command.add_argument("--passes", type=int, default=1)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    if arguments.passes > 1:
        of_passes(arguments.passes, arguments.rounds)
        return
    names = ["plain", *(name for name in arguments.only if name != "plain")]
    runs = {
        name: stepper(CHANGES[name]) if name in CHANGES else bare_compander(KERNELS[name])
        for name in names
    }
    times = alternate(runs, arguments.rounds, warm_up=3)
    print(f"plain: {1e3 * statistics.median(times['plain']):.0f} ms a step")
    for name in names[1:]:
        tell(f"step with {name}", "plain", ratios(times, name, "plain"), GOALS.get(name, ""))


if __name__ == "__main__":
    main()
