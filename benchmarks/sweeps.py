"""What sweeps cost beside training: per trial, per worker, and at 10,000 to a million results.

    python benchmarks/sweeps.py            # about ten minutes, most of it to write a million files
    python benchmarks/sweeps.py 10000      # only the looks at so many results
    python benchmarks/sweeps.py 0          # all but the looks

Ratios are medians over alternating runs. The CPU time is given beside the wall time, because the
wall time also depends on other processes and on the file cache.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _timing import tell

from paramz.slurm import Profile, pack
from paramz.sweeps import Sweep
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.runner import assignment, prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.store.log import append, identity_of, result_line
from paramz.sweeps.store.store import Store

FUNCTIONS = '''
import time

def nothing(config):
    return {"loss": 0.0}

def with_torch(config):
    """A small model and the first steps of an optimizer, which loads much more of torch."""
    begun = time.perf_counter()
    import torch

    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        model(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()
    return {"loss": 0.0, "own": time.perf_counter() - begun}

def work(config):
    """0.2 s of one CPU."""
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    return {"loss": 0.0}
'''
ROUNDS = 5
# 20 pieces take two workers two seconds, and the start of the second one costs a tenth of that.
PIECES = 60
TORCH = 30  # trials that load torch


def seconds(folder: Path, name: str, function: str, trials: int, workers: int) -> float:
    """Wall time from the first trial's start to the last one's result."""
    sweep = Sweep(train=f"{folder}/functions.py:{function}", axes={"n": list(range(trials))})
    store = Store(folder / name)
    assignments = [assignment(sweep, key, c) for key, c in prepare(sweep, store).items()]
    begun: list[float] = []

    def note(kind: str, key: str, status: str) -> None:
        if kind == "start" and not begun:
            begun.append(time.perf_counter())

    Pool(store, sweep.train, workers=workers, on_event=note).run(assignments, Stop())
    return time.perf_counter() - begun[0]


def overhead(folder: Path) -> None:
    """Time of a trial that does nothing: dispatch, attempt, log, result on disk."""
    each = [10 * seconds(folder, f"nothing{i}", "nothing", 100, 1) for i in range(ROUNDS)]
    tell("a trial that does nothing", "", each, "under 10", "ms")


def beside_torch(folder: Path) -> None:
    """The same where the function has loaded torch: the trial's time less the function's own."""
    sweep = Sweep(train=f"{folder}/functions.py:with_torch", axes={"n": list(range(TORCH))})
    each = []
    for i in range(ROUNDS):
        store = Store(folder / f"torch{i}")
        assignments = [assignment(sweep, key, c) for key, c in prepare(sweep, store).items()]
        begun: dict[str, float] = {}
        beside: list[float] = []

        def note(
            kind: str,
            key: str,
            status: str,
            begun: Any = begun,
            beside: Any = beside,
            of: Any = store,
        ) -> None:
            if kind == "start":
                begun[key] = time.perf_counter()
            else:
                own = of.read(key)["metrics"]["own"]
                beside.append(time.perf_counter() - begun[key] - own)

        Pool(store, sweep.train, workers=1, on_event=note).run(assignments, Stop())
        each.append(1000 * statistics.median(beside[2:]))
    tell("a trial beside its function, with torch loaded", "", each, "under 10", "ms")


def bare(folder: Path, workers: int) -> float:
    """Wall time of the same pieces of work in plain processes, without a pool."""
    code = f"import functions; [functions.work({{}}) for _ in range({PIECES // workers})]"
    start = time.perf_counter()
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=folder) for _ in range(workers)]
    for process in processes:
        process.wait()
    return time.perf_counter() - start


def speedup(folder: Path) -> None:
    """Throughput of two workers over that of one, and the same for plain processes."""
    ratios, possible = [], []
    for i in range(ROUNDS):
        one = seconds(folder, f"one{i}", "work", PIECES, 1)
        two = seconds(folder, f"two{i}", "work", PIECES, 2)
        ratios.append(one / two)
        possible.append(bare(folder, 1) / bare(folder, 2))
    tell("throughput of two workers", "one", ratios, "1.8 or more")
    tell("throughput of two bare processes", "one", possible)


def packing(folder: Path) -> None:
    """A spec of 100,000 trials packed into Slurm jobs."""
    start, cpu = time.perf_counter(), time.process_time()
    sweep = grid(folder, 1000)
    profile = Profile(pack={"workers": 8, "minutes": 120}, max_jobs=500)
    packing = pack(sweep, profile, sweep.trials, max_array=101)
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    longest = max(len(array.jobs) for array in packing.arrays)
    print(f"packing {packing.trials} trials {wall:7.2f} s, {used:.2f} s of CPU (target: under 5)")
    print(f"  {packing.jobs} jobs (allowed: 500), arrays of at most {longest} (allowed: 101)")


def grid(folder: Path, seeds: int) -> Sweep:
    """A spec of a hundred trials per seed."""
    return Sweep(
        train=f"{folder}/functions.py:nothing",
        base={"steps": 80},
        axes={
            "parametrization": ["sp", "mup"],
            "width": [64, 128, 256, 512, 1024],
            "lr": {"log2": [-12, -3]},
            "seed": list(range(seeds)),
        },
        resources={"minutes": "width / 64"},
    )


_LINKS = 10_000  # names of one file
LOOKS = {
    "status": "status(store).counts['ok']",
    "collect": "len(load(store.root))",
}
LOOK = """
import sys, time
from pathlib import Path
from paramz.sweeps import Store, load
from paramz.sweeps.store.status import status
store = Store(Path(sys.argv[1]))
start, cpu = time.perf_counter(), time.process_time()
found = eval(sys.argv[2])
wall, used = time.perf_counter() - start, time.process_time() - cpu
with open("/proc/self/status") as file:  # getrusage has the peak of the parent, if that is higher
    memory = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e6
print(f"{found} results {wall:6.2f} s, {used:.2f} s of CPU, {memory:.0f} MB")
"""


def look(store: Store, what: str) -> str:
    """One look in a process of its own: its time without the start of Python, and its memory."""
    command = [sys.executable, "-c", LOOK, str(store.root), LOOKS[what]]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def scale(folder: Path, results: int) -> None:
    """Looks at so many results: the first, later ones, one beside a writer, and the table."""
    sweep, store = grid(folder, results // 100), Store(folder / f"many{results}").create()
    store.set_trials(sweep.trials)
    rest = {"status": "ok", "error": None, "attempts": 1, "metrics": {"loss": 1.5}, "seconds": 1.0}
    lines, last = [], ""
    for key, config in sweep.trials.items():
        record = {"format": 1, "key": key, "config": config, "finished": time.time()} | rest
        path = f"{store.root}/results/{key}.json"
        if results > 100_000 and len(lines) % _LINKS:
            os.link(last, path)  # a look at so many reads names and lines; this takes minutes less
        else:
            with open(path, "w") as file:
                file.write(json.dumps(record))
            last = path
        lines.append(result_line(record, identity_of(path) or (0, 0)))
        if len(lines) == 10_000:  # as the processes that ran the trials append them
            append(store.root, lines)
            lines.clear()
    append(store.root, lines)
    time.sleep(2.5)  # until the folder's time of change can be relied on
    print(f"first look          {look(store, 'status')}")
    print(f"status later        {look(store, 'status')}   (1M: under 3 s, 500 MB)")
    one = sweep.trials | {}
    key, config = one.popitem()
    store.retire(key)
    store.save({"format": 1, "key": key, "config": config, "finished": time.time()} | rest)
    print(f"status beside a writer {look(store, 'status')}")
    print(f"collect             {look(store, 'collect')}")
    if results <= 100_000:
        shutil.rmtree(store.root / "index")
        print(f"status without index {look(store, 'status')}")
    shutil.rmtree(store.root)


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        (folder / "functions.py").write_text(FUNCTIONS)
        if not any(sizes):
            overhead(folder)
            beside_torch(folder)
            speedup(folder)
            packing(folder)
        for results in filter(None, sizes or (10_000, 100_000, 1_000_000)):
            scale(folder, results)


if __name__ == "__main__":
    main()
