"""Second-order optimizers beside fused AdamW: the price of a step, and the steps that it saves.

    python benchmarks/second_order.py [--rounds 3] [--only NAME ...]

The optimizers take turns in one process, on one thread, with whole cycles of twenty steps of the
byte-level GPT, so that work that is done every tenth or twentieth step counts as often as it
should. The median ratio to AdamW is printed. The optimizers do not do equal work: see the note that
is printed.

    python benchmarks/second_order.py --steps-to-target [--tasks mlp conv lm]

The learning rate of each optimizer is tuned on the shipped tasks. Printed is how many steps, and
seconds, each needs to reach the loss that tuned AdamW ends with.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _tasks import BASE, WIDTH, gpt, steps
from _timing import alternate, parser, ratios, tell

import paramz

CYCLE = 20
EVERY = 10  # steps between the roots of the other packages

NOTE = """Not equal work. What is preconditioned, and how often factors / roots are renewed:
  paramz shampoo           all matrices, blocks of 256; every 2nd step / every 20th
  paramz kfac              hidden matrices, blocks of 128; every 10th / every 10th, one draw of the
                           targets
  pytorch_optimizer        Shampoo: all tensors, whole; every step / every 10th.
                           ScalableShampoo: blocks of 512, SGD grafting; every step / every 10th.
                           SOAP: all matrices, whole; every step / every 10th
  singd                    linear layers alone, empirical Fisher, no inverses; every 10th
  torch muon               hidden matrices, nothing kept; five Newton-Schulz steps at every step"""


def ours(name: str, **options: Any) -> Callable[[torch.nn.Module], list[Any]]:
    """Optimizers of paramz, with the groups of a plan."""

    def made(model: torch.nn.Module) -> list[Any]:
        plan = paramz.parametrize_(model, "mup", base=gpt, base_width=BASE)
        return paramz.make_optimizers(plan, model, name, lr=1e-4, **options)

    return made


def peer(module: str, name: str, **options: Any) -> Callable[[torch.nn.Module], list[Any]]:
    """An optimizer of another package on the plain model."""

    def made(model: torch.nn.Module) -> list[Any]:
        return [getattr(import_module(module), name)(model.parameters(), lr=1e-4, **options)]

    return made


def singd(model: torch.nn.Module) -> list[Any]:
    """SINGD needs the model, for its hooks."""
    from singd.optim.optimizer import SINGD

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [SINGD(model, lr=1e-4, T=EVERY, warn_unsupported=False)]


CONTENDERS: dict[str, Callable[[torch.nn.Module], list[Any]]] = {
    "adamw": peer("torch.optim", "AdamW", fused=True),
    "paramz shampoo": ours("shampoo"),
    "paramz kfac": ours("kfac", adamw={"lr": 1e-4}),
    "pytorch_optimizer shampoo": peer(
        "pytorch_optimizer", "Shampoo", preconditioning_compute_steps=EVERY
    ),
    "pytorch_optimizer scalable": peer(
        "pytorch_optimizer",
        "ScalableShampoo",
        start_preconditioning_step=1,
        preconditioning_compute_steps=EVERY,
    ),
    "pytorch_optimizer soap": peer("pytorch_optimizer", "SOAP", precondition_frequency=EVERY),
    "singd": singd,
    "torch muon": ours("muon"),
}

GOALS = {"paramz shampoo": "1.6", "paramz kfac": "1.3"}


def cycler(make: Callable[[torch.nn.Module], list[Any]], count: int = CYCLE) -> Callable[[], None]:
    """Some training steps, each on a batch of its own."""
    torch.manual_seed(0)
    model = gpt(WIDTH)
    return steps(model, make(model), count=count)


def step_times(rounds: int, only: list[str] | None) -> pd.DataFrame:
    """The median ratio of the CPU time of a cycle to AdamW's in the same round, with its range."""
    names = [n for n in CONTENDERS if only is None or n in only or n == "adamw"]
    times = alternate({name: cycler(CONTENDERS[name]) for name in names}, rounds)
    rows = []
    for name in names:
        over = ratios(times, name, "adamw")
        if name != "adamw":
            tell(f"step of {name}", "fused AdamW", over, GOALS.get(name, ""))
        rows.append(
            {
                "optimizer": name,
                "ratio": round(statistics.median(over), 2),
                "least": round(min(over), 2),
                "most": round(max(over), 2),
                "ms_per_step": round(1e3 * statistics.median(times[name]) / CYCLE),
                "rounds": rounds,
            }
        )
    return pd.DataFrame(rows)


# Per task: training function, config, and grids of log2 learning rates.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("train_mlp", {"width": 128, "steps": 120, "batch_size": 128, "base_width": 128}),
    "conv": ("train_conv", {"width": 32, "steps": 120, "batch_size": 128, "base_width": 32}),
    "lm": ("train_lm", {"width": 64, "steps": 200, "base_width": 64}),
}
# The defaults until 2026-11-29, with which the figures of docs/second_order.md on steps were made.
EARLIER: dict[str, dict[str, Any]] = {
    "shampoo": {"update_every": 10, "statistics_every": 1},
    "kfac": {"block_size": 256},
}
# Settings fixed beforehand; the learning rate alone is tuned.
TUNED: dict[str, tuple[dict[str, Any], range]] = {
    "adamw": ({}, range(-9, -2)),
    "muon": ({"rest_lr": 2**-7}, range(-9, -2)),
    "soap": ({"rest_lr": 2**-7}, range(-9, -3)),
    "shampoo": ({"rest_lr": 2**-7, **EARLIER["shampoo"]}, range(-7, 0)),
    "shampoo grafted": (
        {"rest_lr": 2**-7, "graft": "adam", **EARLIER["shampoo"]},
        range(-9, -2),
    ),
    "kfac": ({"damping": 0.1, **EARLIER["kfac"]}, range(-10, -3)),
}
WINDOW = 10


class Losses:
    """Stands for the trial of a sweep that a training function logs to, and keeps the losses."""

    directory = Path("nowhere")

    def __init__(self) -> None:
        self.losses: list[float] = []

    def log(self, step: int, *, loss: float) -> None:
        """Keep one loss; a huge one ends the run."""
        if not loss < 1e3:
            raise FloatingPointError
        self.losses.append(loss)

    def should_stop(self) -> bool:
        """Never."""
        return False


def curve(task: str, optimizer: str, log2_lr: int) -> tuple[pd.Series, float]:
    """Losses, smoothed over ten steps, and CPU seconds per step; empty if it diverged."""
    module, config = TASKS[task]
    options, _ = TUNED[optimizer]
    if optimizer == "kfac" and task == "lm":  # position embeddings are no layer's input
        options = {**options, "adamw": {"lr": 2**-6}}
    trial, started = Losses(), time.process_time()
    whole = {**config, "optimizer": optimizer.split()[0], "lr": 2.0**log2_lr, "options": options}
    try:
        import_module(module).train({**whole, "decay": False}, trial)
    except (FloatingPointError, ValueError):  # K-FAC raises a ValueError when training diverges
        return pd.Series(dtype=float), float("nan")
    seconds = (time.process_time() - started) / config["steps"]
    return pd.Series(trial.losses).rolling(WINDOW).mean().dropna(), seconds


def steps_to_target(tasks: list[str]) -> pd.DataFrame:
    """Steps and time until the loss is that at the end of the best AdamW run."""
    rows = []
    for task in tasks:
        target = float("nan")
        for optimizer, (_, grid) in TUNED.items():
            runs = {lr: curve(task, optimizer, lr) for lr in grid}
            if optimizer == "adamw":
                target = min(run.iloc[-1] for run, _ in runs.values() if len(run))
            reached = {
                lr: int((run <= target).idxmax()) + 1
                for lr, (run, _) in runs.items()
                if (run <= target).any()
            }
            best = min(reached, key=lambda lr: (reached[lr], lr)) if reached else None
            seconds = float("nan") if best is None else runs[best][1]
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "log2_lr": best,
                    "target": round(target, 4),
                    "steps": None if best is None else reached[best],
                    "ms_per_step": round(1e3 * seconds, 1),
                    "at_an_end": best in (grid[0], grid[-1]),
                }
            )
            print(rows[-1], flush=True)
    df = pd.DataFrame(rows)
    adamw = df[df.optimizer == "adamw"].set_index("task")
    df["steps_ratio"] = (df.steps / df.task.map(adamw.steps)).astype(float).round(2)
    ratio = df.ms_per_step / df.task.map(adamw.ms_per_step)
    df["time_ratio"] = (df.steps_ratio * ratio).astype(float).round(2)
    return df


def main() -> None:
    """Measure and print."""
    command = parser(__doc__, rounds=3)
    command.add_argument("--only", nargs="*", help="these contenders, beside AdamW")
    command.add_argument("--steps-to-target", action="store_true")
    command.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    command.add_argument("--save", type=Path, help="CSV to write")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    if arguments.steps_to_target:
        df = steps_to_target(arguments.tasks)
    else:
        df = step_times(arguments.rounds, arguments.only)
        print(NOTE)
    print(df.to_string(index=False))
    if arguments.save:
        df.to_csv(arguments.save, index=False)


if __name__ == "__main__":
    main()
