"""What sweeps cost beside training: per trial, per worker, and at 100,000 trials.

    python benchmarks/sweeps.py            # about four minutes

Ratios are medians over alternating runs. At 100,000 trials the CPU time is given beside the wall
time, because the wall time also depends on other processes and on the file cache.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paramz.slurm import Profile, pack
from paramz.sweeps import Sweep
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.runner import assignment, prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.store.status import status
from paramz.sweeps.store.store import Store

FUNCTIONS = '''
import time

def nothing(config):
    return {"loss": 0.0}

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
    each = [seconds(folder, f"nothing{i}", "nothing", 100, 1) / 100 for i in range(ROUNDS)]
    print(f"overhead per trial     {1000 * statistics.median(each):8.1f} ms   (target: under 50)")


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
    print(f"two workers over one   {statistics.median(ratios):8.2f}      (target: at least 1.8)")
    print(f"  two bare processes over one {statistics.median(possible):.2f}")


def scale(folder: Path) -> None:
    """A spec of 100,000 trials packed into Slurm jobs, and the status over as many results."""
    start, cpu = time.perf_counter(), time.process_time()
    sweep = Sweep(
        train=f"{folder}/functions.py:nothing",
        base={"steps": 80},
        axes={
            "parametrization": ["sp", "mup"],
            "width": [64, 128, 256, 512, 1024],
            "lr": {"log2": [-12, -3]},
            "seed": list(range(1000)),
        },
        resources={"minutes": "width / 64"},
    )
    profile = Profile(pack={"workers": 8, "minutes": 120}, max_jobs=500)
    packing = pack(sweep, profile, sweep.trials, max_array=101)
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    longest = max(len(array.jobs) for array in packing.arrays)
    print(f"packing {packing.trials} trials {wall:7.2f} s, {used:.2f} s of CPU (target: under 5)")
    print(f"  {packing.jobs} jobs (allowed: 500), arrays of at most {longest} (allowed: 101)")
    store = Store(folder / "many").create()
    store.set_trials(sweep.trials)
    record = {"format": 1, "status": "ok", "error": None, "traceback": None, "attempts": 1}
    for key, config in sweep.trials.items():
        rest = {"key": key, "config": config, "metrics": {"loss": 1.5}, "seconds": 1.0}
        store.result(key).write_text(json.dumps(record | rest | {"finished": time.time()}))
    times, used_times = [], []
    for _ in range(3):
        start, cpu = time.perf_counter(), time.process_time()
        found = status(store)
        times.append(time.perf_counter() - start)
        used_times.append(time.process_time() - cpu)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    wall, used = statistics.median(times), statistics.median(used_times)
    print(f"status of {found.counts['ok']} results {wall:6.2f} s, {used:.2f} s of CPU (under 3)")
    print(f"  peak memory {memory:.0f} MB (target: under 1000)")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        (folder / "functions.py").write_text(FUNCTIONS)
        overhead(folder)
        speedup(folder)
        scale(folder)


if __name__ == "__main__":
    main()
