"""Wall time of a coordinate check over mup's get_coord_data for the same work, on two processes.

The byte-level GPT of sweeps/train_lm.py, widths 64, 128, 256, 8 learning rates, recorded at step 0
and after 1 and 2 updates. mup runs one check per learning rate in this process (it has no other
way); paramz shares the first step between learning rates, leaves out the last backward pass and
uses two processes with one thread each. Alternating runs; option --rounds N (3).
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

import paramz

SWEEPS = Path(__file__).parents[1] / "sweeps"
sys.path.insert(0, str(SWEEPS))
import train_lm  # noqa: E402

WIDTHS, LRS, STEPS = (64, 128, 256), [2.0**-k for k in range(6, 14)], 3


def with_paramz() -> float:
    """Seconds of paramz's check; STEPS records are STEPS - 1 updates."""
    started = time.perf_counter()
    paramz.coord_check(
        train_lm.task({}),
        widths=WIDTHS,
        lr=LRS,
        steps=STEPS - 1,
        seeds=1,
        workers=2,
    )
    return time.perf_counter() - started


def with_mup() -> float:
    """Seconds of mup's check."""
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

    x, y = train_lm.batch_of(None, 16, 64, 0)
    loader = [(x, y.flatten())] * STEPS

    started = time.perf_counter()
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
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)  # mup gets both cores, too
    ratios = []
    for _ in range(rounds):
        ours, theirs = with_paramz(), with_mup()
        ratios.append(ours / theirs)
        print(f"paramz {ours:6.1f} s   mup {theirs:6.1f} s   ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
