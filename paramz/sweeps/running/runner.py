"""Running a sweep on this machine, and preparing its directory for any launcher."""

from __future__ import annotations

import json
import os
import platform
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramz.sweeps.running.capacity import capacity, local_gpus, local_memory_gb, shares
from paramz.sweeps.running.changed import (
    Changed,
    accept,
    begun_by_other_code,
    check_function,
    of_other_code,
    sentence,
    sentence_of_begun,
    sentence_of_limit,
    stopped_below,
)
from paramz.sweeps.running.launcher import Options, Retry
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.process import Assignment
from paramz.sweeps.running.progress import Reporter
from paramz.sweeps.running.recording import Tally
from paramz.sweeps.running.refine import begin_round, carry_over, next_round
from paramz.sweeps.running.stopping import Stop, stop_on_signals
from paramz.sweeps.running.wording import described
from paramz.sweeps.spec.axes import Cases
from paramz.sweeps.spec.code import code_of
from paramz.sweeps.spec.config import Config, leaves
from paramz.sweeps.spec.shard import Shard
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.files import write_over
from paramz.sweeps.store.store import Store
from paramz.sweeps.store.table import load

if TYPE_CHECKING:
    import pandas as pd

_RUN_AGAIN: dict[Retry, set[str]] = {
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
    changed: Changed = "tell",
) -> pd.DataFrame:
    """Run the trials of a sweep that have no result, in worker processes on this machine.

    Args:
        sweep: what to run.
        out: the directory of the sweep; results that it contains are not computed again.
        workers: how many trials run at once; by default as many as the CPUs, the memory and the
            GPUs of this machine allow by the resources of the spec.
        retry: which results are put aside first, so that their trials run again: those of failed
            trials ("failed"), of failed and diverged ones ("diverged"), "all" or "none".
        changed: what happens to results of other code than the training function has now: they
            are told of ("tell"), run again ("rerun"), or from now on count as results of the
            present code ("accept").

    Returns:
        The table of `paramz.sweeps.load`, earlier results included.

    Raises:
        ValueError: the directory holds the results of another training function, the sweep has
            more trials than its budget allows, or it cannot be refined.
        paramz.sweeps.running.pool.BrokenTarget: the training function cannot be imported.
    """
    with stop_on_signals() as stop:
        run_missing(sweep, Store(Path(out)), Options(retry, workers, changed=changed, stop=stop))
    return load(out)


def run_missing(sweep: Sweep, store: Store, options: Options) -> Tally:
    """Run the trials of a sweep that have no result, then its rounds of refinement.

    No trial and no round is started once a stop was requested; what is left is counted.

    Raises:
        ValueError: as for `run`.
        paramz.sweeps.running.pool.BrokenTarget: the training function cannot be imported.
    """
    stop = options.stop
    tally = run_trials(
        sweep,
        store,
        prepare(sweep, store, options.retry, options.changed),
        stop,
        workers=options.workers,
    )
    while tally.complete and not stop.requested:
        trials = next_round(sweep, store)
        if not trials or stop.requested:
            break
        begin_round(store, trials)
        tally = tally + run_trials(sweep, store, trials, stop, workers=options.workers)
    tally.stopped = stop.requested
    return tally


def prepare(
    sweep: Sweep, store: Store, retry: Retry = "failed", changed: Changed = "tell"
) -> dict[str, Config]:
    """Create or reopen the directory of a sweep, and put aside the results to be computed again.

    Returns:
        The configs of the trials that have no result now, by key.

    Raises:
        ValueError: the directory holds the results of another training function, or the sweep has
            more trials than its budget allows.

    Warns:
        UserWarning: there are results of other code than the training function has now, or trials
            that go on from what such code has saved; or the limit of the loss was raised.
    """
    check_budget(sweep)
    code = code_of(sweep.target, sweep.base)
    if changed != "accept":
        check_function(store, sweep.target, code)
    _check_shard(store, sweep.shard)
    store.create()
    write_over(store.root / "spec.yaml", sweep.to_yaml())
    write_over(store.root / "run.json", json.dumps(provenance(sweep, store), indent=2) + "\n")
    carry_over(sweep, store)
    store.set_trials(sweep.trials)
    asked = store.trials()
    done = {record["key"]: record for record in store.records() if record["key"] in asked}
    if changed == "accept":
        accept(store, sweep.target, done.values())
    again = {key for key, record in done.items() if record["status"] in _RUN_AGAIN[retry]}
    other = set(of_other_code(store, sweep.target, done.values()))
    if changed == "rerun":
        again |= other
    elif kept := other - again:
        warnings.warn(sentence(len(kept), sweep.target, code["source"]), stacklevel=2)
    for key in again:
        # A failure goes on from its last checkpoint. What ended, and is asked for once more, would
        # find itself at its end there, and repeat the old result as one of the present code.
        failed = done[key]["status"] == "failed"
        store.retire(key, afresh=not failed or (changed == "rerun" and key in other))
    if cut := stopped_below(sweep.loss_limit, (done[key] for key in done.keys() - again)):
        warnings.warn(sentence_of_limit(cut, sweep.loss_limit), stacklevel=2)
    todo = {key: config for key, config in asked.items() if key not in done or key in again}
    begun = begun_by_other_code(store, sweep.target, todo)
    if changed == "rerun":
        for key in begun:
            store.set_aside(key)
    elif begun and changed == "tell":
        warnings.warn(sentence_of_begun(len(begun), sweep.target), stacklevel=2)
    return todo


def reopen(store: Store) -> Sweep:
    """The sweep of a directory, as it was last run there.

    Raises:
        paramz.sweeps.spec.yamlfile.SpecError: the spec in the directory is no longer valid, for
            example because the file of the training function is gone.
    """
    info = store.info()
    folder = Path(info.get("folder", "."))
    if not folder.is_dir() and "place" in info:  # the project has moved, and the store with it
        folder = (store.root / info["place"]).resolve()
    sweep = Sweep.from_yaml(store.root / "spec.yaml", folder)
    return sweep.share(Shard.parse(info["shard"])) if info.get("shard") else sweep


def _check_shard(store: Store, shard: Shard | None) -> None:
    """Refuse a share of a sweep in a directory that holds something else than this share."""
    info = store.info()
    if shard is not None and info and info.get("shard") != str(shard):
        held = f"share {info['shard']}" if info.get("shard") else "a whole sweep"
        raise ValueError(
            f"{store.root} holds {held}, this is share {shard}; give every share a directory of "
            "its own (--out)"
        )


def check_budget(sweep: Sweep) -> None:
    """Refuse a sweep with more trials than its budget allows.

    Raises:
        ValueError: the sweep has too many trials; the message gives both numbers.
    """
    allowed = sweep.budget.trials
    if allowed is not None and (count := sweep.exceeds(allowed)):
        dependent = any(isinstance(axis, Cases) for axis in sweep.axes.values())
        number = f"at least {count}" if dependent else str(count)
        raise ValueError(
            f"the sweep has {number} trials, its budget allows {allowed}; "
            "take values from an axis or raise budget.trials"
        )


def run_trials(
    sweep: Sweep,
    store: Store,
    trials: dict[str, Config],
    stop: Stop,
    *,
    workers: int | None = None,
) -> Tally:
    """Run trials in a pool on this machine, with progress on stderr.

    Raises:
        paramz.sweeps.running.pool.BrokenTarget: the training function cannot be imported.
    """
    assignments = [assignment(sweep, key, config) for key, config in trials.items()]
    needs = {sweep.need(config) for config in trials.values()}
    gpus = local_gpus()
    fit = capacity(needs, gpus, local_memory_gb()) if needs else 1
    size = max(1, min(workers or fit, len(assignments)))
    share = max((need.gpus for need in needs), default=0.0) or 1
    total = len(store.trials())
    done = total - len(assignments)
    with Reporter(len(assignments)) as report:
        stop.say = report.say
        if done:
            idle = "" if assignments else f": nothing to run, results in {store.root}"
            report.say(f"{done} of {total} trials have a result already{idle}")
        if assignments:
            report.say(f"{len(assignments)} trials to run, {size} at once, results in {store.root}")

        def on_event(kind: str, key: str, status: str) -> None:
            if kind == "end":
                report.ended(status)
                if status == "failed":
                    _say_failure(report, store, key, trials[key])

        pool = Pool(
            store,
            sweep.target,
            workers=size,
            limits=sweep.limits,
            environment=shares(gpus, share, size),
            on_event=on_event,
        )
        tally = pool.run(assignments, stop)
        if assignments:
            report.say(f"{described(report.counts)} in {report.elapsed()}")
        for keys, text in (
            (tally.busy, "are being run by another process, and were left to it"),
            (tally.unsaved, "finished, but the disk did not take their results (is it full?)"),
            (tally.refused, "were not begun, because the disk did not take their first file"),
        ):
            if keys:
                report.say(f"{len(keys)} trials {text}")
        if tally.unsaved or tally.refused:
            report.say("the same command runs them once the disk has room")
        if stop.requested:
            report.say("stopped; the same command goes on from here")
    return tally


def assignment(sweep: Sweep, key: str, config: Config) -> Assignment:
    """A trial of a sweep, with what it may use."""
    need = sweep.need(config)
    return Assignment(key, config, need.cpus, need.minutes, sweep.resources.silent_minutes)


def provenance(sweep: Sweep, store: Store) -> dict[str, Any]:
    """What is recorded of a run: training function, its code and versions, but no environment."""
    return {
        "train": sweep.target,
        "folder": str(sweep.folder),
        "shard": str(sweep.shard) if sweep.shard else None,
        "place": os.path.relpath(sweep.folder, store.root.absolute()),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "paramz": _version("torch-paramz"),
        **code_of(sweep.target, sweep.base),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _say_failure(report: Reporter, store: Store, key: str, config: Config) -> None:
    if (record := store.read(key)) is not None:
        names = ", ".join(f"{name}={value}" for name, value in leaves(config).items())
        report.say(f"failed: {names}: {record['error']} (paramz logs {store.root} {key})")
