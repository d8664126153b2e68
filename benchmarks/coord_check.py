"""Time of a coordinate check over mup's get_coord_data for the same work.

The byte-level GPT of sweeps/train_lm.py, widths 64, 128, 256, 8 learning rates, recorded at step 0
and after 1 and 2 updates. mup runs one check per learning rate in this process, as it has no other
way; paramz shares the first step between learning rates, leaves out the last backward pass, and
takes 256 of the batch's 1024 tokens, which tell a slope as closely (docs/coordinate_check.md). CPU
time is measured with one thread each, after a run of each in which torch loads what it loads late;
with ``--wall`` also wall time with two processes of one thread against mup with two threads, which
says little beside other work. The two alternate.

    python benchmarks/coord_check.py [--rounds 3] [--wall]
    python benchmarks/coord_check.py --model mlp        # on digits, as in sweeps/train_mlp.py
    python benchmarks/coord_check.py --model 50m        # up to 49M parameters; peak memory, too
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from _tasks import train_lm, train_mlp
from _timing import alternate, parser, ratios, tell

import paramz

STEPS = 3


@dataclass(frozen=True)
class Case:
    """What is checked.

    Attributes:
        task: of paramz.
        build: width -> the same model for mup.
        batch: for mup.
        widths: of the models.
        lrs: learning rates.
    """

    task: paramz.Task
    build: Callable[[int], torch.nn.Module]
    batch: tuple[torch.Tensor, torch.Tensor]
    widths: tuple[int, ...]
    lrs: list[float]


def case_of(model: str) -> Case:
    """A GPT of 0.1 to 1.7M parameters, an MLP of 0.01 to 1M, or a GPT of 3 to 49M."""
    rates = [2.0**-k for k in range(6, 14)]
    if model == "mlp":
        return Case(train_mlp.task({}), train_mlp.MLP, train_mlp.digits(), (64, 256, 1024), rates)
    x, y = train_lm.batch_of(None, 16, 64, 0, 0)
    if model == "50m":
        large = {"depth": 8, "context": 64}
        build = partial(train_lm.GPT, **large)
        return Case(train_lm.task(large), build, (x, y.flatten()), (176, 352, 704), [2**-8])
    return Case(train_lm.task({}), train_lm.GPT, (x, y.flatten()), (64, 128, 256), rates)


# The first before others have taken memory.
NAMES = {"50m": "a GPT up to 49M", "gpt": "a GPT", "mlp": "an MLP"}


def with_paramz(case: Case, workers: int = 1) -> None:
    """The check by paramz; STEPS records are STEPS - 1 updates."""
    paramz.coord_check(
        case.task,
        widths=case.widths,
        lr=case.lrs,
        steps=STEPS - 1,
        seeds=1,
        workers=workers,
    )


def with_mup(case: Case) -> None:
    """The check by mup."""
    import mup
    from mup.coord_check import get_coord_data

    first, second = case.widths[:2]

    def build(width: int) -> torch.nn.Module:
        model = case.build(width)
        bias = model.readout.bias is not None
        model.readout = mup.MuReadout(width, model.readout.out_features, bias=bias)
        return model

    def make(width: int) -> torch.nn.Module:
        model = build(width)
        mup.set_base_shapes(model, build(first), delta=build(second))
        return model

    for lr in case.lrs:
        get_coord_data(
            {width: lambda width=width: make(width) for width in case.widths},
            [case.batch] * STEPS,
            optimizer="adamw",
            lr=lr,
            nsteps=STEPS,
            nseeds=1,
            flatten_output=True,
            cuda=False,
            show_progress=False,
        )


def peak_memory(run: Callable[[], None]) -> float:
    """Memory of a process of its own at its peak, in MB, after its imports."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(write, f"{(after - before) / 1024:.0f}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(read, 64))


def compare(model: str, case: Case, rounds: int, *, wall: bool) -> None:
    """Measure and print one model."""
    torch.set_num_threads(1)
    if model == "50m":
        ours, theirs = (peak_memory(partial(run, case)) for run in (with_paramz, with_mup))
        what = f"coordinate check of {NAMES[model]}, memory at the peak beside imports"
        print(f"paramz {ours:.0f} MB, mup {theirs:.0f} MB")
        tell(what, "mup", [ours / theirs])
    cases = (
        ("CPU time on one thread", 1, time.process_time, 1, "0.3"),
        ("wall time on two cores", 2, time.perf_counter, 0, ""),
    )
    for what, cores, clock, warm_up, goal in cases[: 1 + wall]:
        torch.set_num_threads(cores)  # mup gets both cores as well
        runs = {"paramz": partial(with_paramz, case, cores), "mup": partial(with_mup, case)}
        times = alternate(runs, rounds, warm_up=warm_up, clock=clock)
        for ours, theirs in zip(times["paramz"], times["mup"], strict=True):
            print(f"paramz {ours:6.1f} s   mup {theirs:6.1f} s")
        found = ratios(times, "paramz", "mup")
        tell(f"coordinate check of {NAMES[model]}, {what}", "mup", found, goal)


def main() -> None:
    """Measure and print."""
    command = parser(__doc__, rounds=3)
    command.add_argument("--wall", action="store_true", help="wall time on two cores, too")
    command.add_argument("--model", choices=NAMES, nargs="+", default=list(NAMES))
    asked = command.parse_args()
    for model in asked.model:
        compare(model, case_of(model), asked.rounds, wall=asked.wall)


if __name__ == "__main__":
    main()
