"""The table of ratios: its lines, which goals are not met, and why."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Row = Mapping[str, Any]
"""What `_timing.tell` writes down: what, over, figure (quartiles), goal, unit; and ``by``."""

_COLUMNS = """| what | compared with | figure | goal | made by |
|---|---|---|---|---|
"""
_OF_MAPS = (
    "Torch's kernels alone, on as many weights and without autograd, are the limit: the row \"its "
    'kernels alone", most of which is the arctangent. What is left is memory for weights and '
    "gradients, and one function of autograd per layer. A single function for all layers of a step "
    "saved 0.02 in a prototype, but keeps the gradients of all weights until the end of the "
    "backward pass: a copy of the model more, and nothing that DDP could send before."
)
# Rows whose goal is out of reach as things stand, by what they say.
REASONS = {
    "step with weight norm": (
        "Torch's kernel is used. The rest is one Python function of autograd per layer, 0.03 ms in "
        "a step, which is there because torch's own formula has wrong second derivatives. One "
        "function for all layers reached 1.02 in a prototype, at the cost named for companders."
    ),
    "step with compander": _OF_MAPS,
    "step with compander, fixed": _OF_MAPS,
    "step of a u-muP decoder, paramz.nn": (
        "26 functions of autograd in Python, each with a scale forward and another one backward: "
        "1.01 if they cost nothing else. A plain model beside itself differs as in the first row."
    ),
    "step of a u-muP decoder, converted": (
        "As for paramz.nn. A plain model beside itself differs as in the first row."
    ),
    **dict.fromkeys(
        (
            "step under folded muP, eager, paramz",
            *(
                f"step under folded muP, {how}{tied}"
                for how in ("eager", "compiled")
                for tied in ("", ", tied embedding")
            ),
        ),
        "Both models do the same work (but for a factor on a tied readout), so this is noise.",
    ),
    **dict.fromkeys(
        (
            "coordinate check of a GPT, CPU time on one thread",
            "coordinate check of a GPT up to 49M, CPU time on one thread",
        ),
        "Two thirds are the model's own passes; the rest is planning (a quarter of a second) and "
        "measuring. The larger GPT is checked at one learning rate, where the first step is not "
        "shared.",
    ),
    "step of paramz shampoo": (
        "Of what it costs beside AdamW, half is the products with the roots, a quarter the "
        "statistics and a quarter the roots. Cheaper settings cost loss (docs/second_order.md)."
    ),
    "step of paramz kfac": (
        "The second backward pass and the products of both factors; smaller blocks were not tried."
    ),
    **dict.fromkeys(
        (
            "a trial that does nothing",
            "a trial beside its function, with torch loaded",
            "throughput of two workers",
        ),
        "Wall time beside other processes; without them 3 ms, 5 ms and 1.96 (2026-11-29).",
    ),
    "planning 300M, real": (
        "The base is drawn for real and measured to the last digit, as it always was; building it "
        "takes torch the seconds of its own row, and reading and scaling 1.2 GB of the target "
        "0.2 s. On meta nothing is drawn."
    ),
    "planning 61 x 256 experts on meta": (
        "Base and wider probe are built in full, each of which takes torch alone most of the "
        "seconds of its own row."
    ),
}


def missed(row: Row, rows: Sequence[Row]) -> bool:
    """Whether the middle figure of a row misses its goal.

    Raises:
        ValueError: a goal of another form than 1.03, 0.9 to 1.1, "under 10", "1.8 or more" and
            "torch's or below".
    """
    goal, (_, figure, _) = row["goal"], row["figure"]
    match goal.split():
        case []:
            return False
        case [least, "to", most]:
            return not float(least) <= figure <= float(most)
        case ["under", most]:
            return not figure < float(most)
        case [least, "or", "more"]:
            return not figure >= float(least)
        case ["torch's", "or", "below"]:
            peer = row["what"].replace("step with", "step with torch")
            return not figure <= next(r["figure"][1] for r in rows if r["what"] == peer)
        case [most]:
            return not figure <= float(most)
    raise ValueError(f"{row['what']}: a goal that cannot be compared, {goal!r}")


def as_line(row: Row) -> str:
    """A row in Markdown."""
    low, middle, high = row["figure"]
    figure = f"{middle:.3g}" if low == high else f"{middle:.3g} [{low:.3g}, {high:.3g}]"
    cells = [row["what"], row["over"], f"{figure} {row['unit']}".strip(), row["goal"], row["by"]]
    return f"| {' | '.join(cells)} |"


def table(rows: Sequence[Row]) -> str:
    """All rows, and below them the goals that are not met, each with the reason."""
    lines = "\n".join(as_line(row) for row in rows)
    below = [
        f"- **{row['what']}**, {row['figure'][1]:.3g} for {row['goal']}: "
        + REASONS.get(row["what"], "no reason is known yet.")
        for row in rows
        if missed(row, rows)
    ]
    said = "\n".join(["## Goals not met", "", *below]) if below else "All goals are met."
    return f"{_COLUMNS}{lines}\n\n{said}\n"


def made_on(machine: str) -> str:
    """Date, machine, how busy it is, and versions, for the head of a table."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    load = f"{os.getloadavg()[0]:.0f} other processes ran at the start"
    return f"{time.strftime('%Y-%m-%d')}: {machine}, {versions}; {load}"


def processor() -> str:
    """The cores of this machine, and what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{os.cpu_count()} cores of {next(names, platform.processor() or platform.machine())}"
