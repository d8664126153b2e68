"""Running a sweep on this machine; also what every other way of running it starts with."""

import json
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from paramz.sweeps.running.pool import Pool, Stop, Tally
from paramz.sweeps.running.process import Task
from paramz.sweeps.running.progress import Reporter, described
from paramz.sweeps.running.refine import add_round
from paramz.sweeps.spec.config import Config, leaves
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.files import write_over
from paramz.sweeps.store.store import Store, load

if TYPE_CHECKING:
    import pandas as pd

Retry = Literal["failed", "none", "diverged", "all"]
RETRIES: dict[Retry, set[str]] = {
    "failed": {"failed"},
    "none": set(),
    "diverged": {"failed", "diverged"},
    "all": {"failed", "diverged", "ok", "stopped"},
}


def run(
    sweep: Sweep,
    out: str | Path,
    *,
    workers: int | None = None,
    retry: Retry = "failed",
) -> "pd.DataFrame":
    """Run what a sweep is missing, in worker processes on this machine.

    Args:
        sweep: What to run.
        out: The directory of the sweep; results that it holds are not computed again.
        workers: Processes at once; by default one per CPU that a trial needs.
        retry: Which results to throw away first: "failed", "none", "diverged" (failed ones too)
            or "all".

    Returns:
        The table of `paramz.sweeps.load`, earlier results included.

    Raises:
        ValueError: If the directory holds the results of another training function.
        paramz.sweeps.running.pool.BrokenTarget: If the training function cannot be imported.
    """
    run_missing(sweep, Store(Path(out)), retry, workers)
    return load(out)


def run_missing(
    sweep: Sweep, store: Store, retry: Retry = "failed", workers: int | None = None
) -> Tally:
    """Run what a sweep is missing, then its rounds of refinement.

    Raises:
        ValueError: As `prepare` does, or if the sweep cannot be refined.
        paramz.sweeps.running.pool.BrokenTarget: If the training function cannot be imported.
    """
    tally = run_tasks(sweep, store, prepare(sweep, store, retry), workers=workers)
    while tally.complete and (trials := add_round(sweep, store)):
        tally = tally + run_tasks(sweep, store, trials, workers=workers)
    return tally


def prepare(sweep: Sweep, store: Store, retry: Retry = "failed") -> dict[str, Config]:
    """Make or reopen the directory of a sweep; put aside results that are to be run again.

    Returns:
        The trials that have no result now, by key.

    Raises:
        ValueError: If the directory holds the results of another training function, or the
            sweep has more trials than its budget allows.
    """
    check_budget(sweep)
    before = store.info().get("train")
    if before not in (None, sweep.train):
        raise ValueError(
            f"{store.root} holds results of {before}, this sweep trains {sweep.train}; "
            "choose another directory (--out)"
        )
    store.create()
    write_over(store.root / "spec.yaml", sweep.to_yaml())
    write_over(store.root / "run.json", json.dumps(provenance(sweep), indent=2) + "\n")
    store.set_trials(sweep.trials)
    asked = store.trials()
    missing = asked.keys() - store.finished()
    again = RETRIES[retry]
    for key in asked.keys() - missing if again else ():
        record = store.read(key)
        if record is None or record["status"] in again:
            store.retire(key)
            missing.add(key)
    return {key: config for key, config in asked.items() if key in missing}


def reopen(store: Store) -> Sweep:
    """The sweep of a directory, as it was last run there.

    Raises:
        paramz.sweeps.spec.yamlfile.SpecError: If its spec no longer holds, e.g. the training
            function is gone.
    """
    return Sweep.from_yaml(store.root / "spec.yaml", Path(store.info().get("folder", ".")))


def check_budget(sweep: Sweep) -> None:
    """Refuse a sweep of more trials than its budget.

    Raises:
        ValueError: With both numbers.
    """
    allowed = sweep.budget.trials
    if allowed is not None and len(sweep.trials) > allowed:
        raise ValueError(
            f"the sweep has {len(sweep.trials)} trials, its budget allows {allowed}; "
            "take values from an axis or raise budget.trials"
        )


def run_tasks(
    sweep: Sweep, store: Store, trials: dict[str, Config], *, workers: int | None = None
) -> Tally:
    """Run trials in a local pool, reporting on stderr; Ctrl-C stops it and keeps what is done.

    Raises:
        paramz.sweeps.running.pool.BrokenTarget: If the training function cannot be imported.
    """
    tasks = [task(sweep, key, config) for key, config in trials.items()]
    threads = max((t.threads for t in tasks), default=1)
    size = max(1, min(workers or len(os.sched_getaffinity(0)) // threads, len(tasks)))
    total = len(store.trials())
    done = total - len(tasks)
    with Reporter(len(tasks)) as report, _signals(report) as stop:
        if done:
            report.say(f"{done} of {total} trials have a result already")
        report.say(f"{len(tasks)} trials to run, {size} at once, results in {store.root}")
        pool = Pool(
            store,
            sweep.train,
            workers=size,
            rules=sweep.rules,
            environment=[{"CUDA_VISIBLE_DEVICES": gpu} for gpu in local_gpus()],
            on_event=lambda kind, key, status: _tell(report, store, trials, kind, key, status),
        )
        tally = pool.run(tasks, stop)
        report.say(f"{described(report.counts)} in {report.elapsed()}")
        for keys, text in (
            (tally.busy, "being run by another process; left to it"),
            (tally.unsaved, "finished but could not be written (disk full?); rerun to repeat them"),
        ):
            if keys:
                report.say(f"{len(keys)} trials {text}")
        if stop.requested:
            report.say("stopped; the same command goes on from here")
    return tally


def task(sweep: Sweep, key: str, config: Config) -> Task:
    """A trial of a sweep with its limits."""
    need = sweep.need(config)
    return Task(key, config, need.cpus, need.minutes, sweep.resources.silent_minutes)


def local_gpus() -> list[str]:
    """The GPUs that local workers take turns on."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def provenance(sweep: Sweep) -> dict[str, Any]:
    """What is recorded of a run: the function, versions and commit; never the environment."""
    return {
        "train": sweep.train,
        "folder": str(sweep.folder),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "paramz": _version("torch-paramz"),
        "commit": _commit(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
            or None
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _tell(
    report: Reporter, store: Store, trials: dict[str, Config], kind: str, key: str, status: str
) -> None:
    if kind != "end":
        return
    report.ended(status)
    if status == "failed" and (record := store.read(key)) is not None:
        names = ", ".join(f"{name}={value}" for name, value in leaves(trials[key]).items())
        report.say(f"failed: {names}: {record['error']} (paramz logs {store.root} {key})")


@contextmanager
def _signals(report: Reporter) -> Iterator[Stop]:
    """SIGINT and SIGTERM stop the sweep; a second one does not wait for checkpoints."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            stop.request(grace=0.0)
        else:
            stop.request()
            report.say("stopping; trials that can are saving themselves (again to end at once)")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
