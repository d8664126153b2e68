"""One table of what paramz costs beside its peers, from the other benchmarks: benchmarks/README.md.

Each runs in a process of its own, with so few rounds that all take under 15 minutes on two cores;
for closer figures run it by itself. What needs a GPU is benchmarks/gpu.py.

    python benchmarks/table.py [--only overhead fit ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _rows import made_on, processor, table
from _timing import ROWS

HERE = Path(__file__).parent
TABLE = HERE / "README.md"
# The options of each, for few rounds.
RUNS = {
    "overhead": ["--rounds", "12", "--no-compile"],
    "u_mup": ["--rounds", "6", "--builds", "2"],
    "reparam": ["--rounds", "10"],
    "coord_check": ["--rounds", "1"],
    "second_order": ["--rounds", "1", "--only", "paramz shampoo", "paramz kfac"],
    "compat_mup": ["--rounds", "60"],
    "fit": ["--repeats", "1", "--starts", "90", "--boots", "50"],
    "planning": [],
    "sweeps": ["0"],
}
HEAD = """# What paramz costs

Made by `make bench` on {made}.
One thread, unless a row says otherwise. CPU time in overhead, u_mup, reparam, second_order and
planning, and where a row says so; else wall time, which other processes distort. Ratios are medians
over alternating runs in one process, with quartiles in brackets; a single figure was measured once.
The other files here print the same figures from more rounds, and say how they were measured. What
needs a GPU is `python benchmarks/gpu.py`, which writes benchmarks/GPU.md in this form.

"""


def rows_of(name: str, options: list[str]) -> list[dict[str, Any]]:
    """Run a benchmark and return the rows that it tells."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as told:
        environment = os.environ | {ROWS: told.name}
        command = [sys.executable, str(HERE / f"{name}.py"), *options]
        started = time.perf_counter()
        ended = subprocess.run(command, env=environment)
        print(f"--- {name}: {time.perf_counter() - started:.0f} s", flush=True)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit status {ended.returncode}")
        return [json.loads(line) | {"by": f"{name}.py"} for line in told]


def main() -> None:
    """Run the benchmarks and write the table."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    command.add_argument("--to", type=Path, default=TABLE, help="where to write the table")
    arguments = command.parse_args()
    head = HEAD.format(made=made_on(processor()))
    rows = [row for name in arguments.only for row in rows_of(name, RUNS[name])]
    arguments.to.write_text(head + table(rows), encoding="utf-8")
    print(f"written to {arguments.to}")


if __name__ == "__main__":
    main()
