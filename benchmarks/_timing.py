"""How benchmarks compare: all contenders in one process, in turn, and medians of their ratios.

Whatever else keeps the machine busy, or changes its clock, then meets neighbouring runs alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

ROWS = "PARAMZ_BENCH_ROWS"  # names the file that benchmarks/table.py reads

Runs = Mapping[str, Callable[[], object]]
Times = dict[str, list[float]]


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The command line of a benchmark, with an option for the number of rounds."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds, help=f"measured rounds ({rounds})")
    return made


def alternate(
    runs: Runs,
    rounds: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Seconds of each run in each round; every second round goes through the runs backwards.

    Args:
        runs: what to call, by the name of the contender.
        rounds: how often each is measured.
        warm_up: how often each is called before the first round.
        clock: ``time.process_time`` counts the CPU time of this process alone.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: Times = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs) if turn % 2 else reversed(list(runs)):
            started = clock()
            runs[name]()
            times[name].append(clock() - started)
    return times


def ratios(times: Times, name: str, base: str) -> list[float]:
    """The seconds of one contender over those of another, round by round."""
    return [a / b for a, b in zip(times[name], times[base], strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile; one value is all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def line(values: Sequence[float]) -> str:
    """The median of some ratios and their quartiles, as text."""
    low, middle, high = quartiles(values)
    return f"median {middle:.3f}  quartiles {low:.3f} {high:.3f}"


def tell(
    what: str, over: str, values: Sequence[float], goal: str = "", unit: str = "", more: str = ""
) -> None:
    """Print a figure, and write it down where benchmarks/table.py asks for it.

    Args:
        what: what was measured.
        over: what it is compared with; "" for times and memory as they are.
        values: ratios of alternating runs, or figures of several runs.
        goal: what the figure should be, as text.
        unit: of the values; "" for ratios.
        more: what else is printed.
    """
    print(f"{what} / {over}" if over else what, f" {line(values)} {unit} {more}", flush=True)
    if path := os.environ.get(ROWS):
        row = {"what": what, "over": over, "figure": quartiles(values), "goal": goal, "unit": unit}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
