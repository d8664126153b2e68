"""Time of a coordinate check over mup's get_coord_data for the same work.

The byte-level GPT of sweeps/train_lm.py, widths 64, 128, 256, 8 learning rates, recorded at step 0
and after 1 and 2 updates. mup runs one check per learning rate in this process, as it has no other
way; paramz shares the first step between learning rates, leaves out the last backward pass, and
takes 256 of the batch's 1024 tokens, which tell a slope as closely (docs/coordinate_check.md). CPU
time is measured with one thread each, after a run of each in which torch loads what it loads late;
with ``--wall`` also wall time with two processes of one thread against mup with two threads, which
says little beside other work. The two alternate.

    python benchmarks/coord_check.py [--rounds 3] [--wall]
"""

from __future__ import annotations

import time
from functools import partial

import torch
from _tasks import train_lm
from _timing import alternate, parser, ratios, tell

import paramz

WIDTHS, LRS, STEPS = (64, 128, 256), [2.0**-k for k in range(6, 14)], 3


def with_paramz(workers: int) -> None:
    """The check by paramz; STEPS records are STEPS - 1 updates."""
    paramz.coord_check(
        train_lm.task({}),
        widths=WIDTHS,
        lr=LRS,
        steps=STEPS - 1,
        seeds=1,
        workers=workers,
    )


def with_mup() -> None:
    """The check by mup."""
    import mup
    from mup.coord_check import get_coord_data

    def build(width: int) -> torch.nn.Module:
        model = train_lm.GPT(width)
        model.readout = mup.MuReadout(width, 256, bias=False)
        return model

    def make(width: int) -> torch.nn.Module:
        model = build(width)
        mup.set_base_shapes(model, build(64), delta=build(128))
        return model

    x, y = train_lm.batch_of(None, 16, 64, 0, 0)
    loader = [(x, y.flatten())] * STEPS
    for lr in LRS:
        get_coord_data(
            {width: lambda width=width: make(width) for width in WIDTHS},
            loader,
            optimizer="adamw",
            lr=lr,
            nsteps=STEPS,
            nseeds=1,
            flatten_output=True,
            cuda=False,
            show_progress=False,
        )


def main() -> None:
    """Measure and print."""
    command = parser(__doc__, rounds=3)
    command.add_argument("--wall", action="store_true", help="wall time on two cores, too")
    asked = command.parse_args()
    cases = (
        ("CPU time on one thread", 1, time.process_time, 1, "0.3"),
        ("wall time on two cores", 2, time.perf_counter, 0, ""),
    )
    for what, cores, clock, warm_up, goal in cases[: 1 + asked.wall]:
        torch.set_num_threads(cores)  # mup gets both cores as well
        runs = {"paramz": partial(with_paramz, cores), "mup": with_mup}
        times = alternate(runs, asked.rounds, warm_up=warm_up, clock=clock)
        for ours, theirs in zip(times["paramz"], times["mup"], strict=True):
            print(f"paramz {ours:6.1f} s   mup {theirs:6.1f} s")
        tell(f"coordinate check of a GPT, {what}", "mup", ratios(times, "paramz", "mup"), goal)


if __name__ == "__main__":
    main()
