"""Submitting the trials of a sweep to Slurm.

Before an array is submitted, the orders of its jobs are written to ``slurm/arrays/<name>/<i>.json``
in the directory of the sweep, and the array gets that name as its comment. One call of squeue then
tells anyone on any machine which trials have jobs, even if the submitting process died in between
(`paramz.slurm.live`). Whatever the queue says, a trial is run only by the process that has made an
attempt at it (`paramz.sweeps.store.attempt`).
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paramz.slurm import queue
from paramz.slurm.live import job_name, jobs_of, log_folder, trials_of
from paramz.slurm.order import JobOrder
from paramz.slurm.packing import Array, Packing, pack, parameters
from paramz.slurm.profile import Profile
from paramz.sweeps.running.changed import Changed
from paramz.sweeps.running.launcher import LaunchError, Retry
from paramz.sweeps.running.refine import begin_round, next_round
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.store import Store

_MAX_REQUEUES = (
    100  # by submitit after a time limit; trials are bounded by time limits of their own
)


@dataclass(frozen=True)
class Submission:
    """What was submitted, or would be.

    Attributes:
        directory: the directory of the sweep.
        packing: the trials, jobs and arrays.
        jobs: the ids of the arrays, in the order of ``packing.arrays``.
        skipped: number of trials that were not submitted because they have a job already.
    """

    directory: Path
    packing: Packing
    jobs: tuple[str, ...] = ()
    skipped: int = 0


class SubmissionError(LaunchError):
    """sbatch refused an array; those submitted before it stay, and a rerun submits the rest."""


def submit(
    sweep: Sweep,
    profile: Profile | str | Path,
    out: str | Path,
    *,
    retry: Retry = "failed",
    changed: Changed = "tell",
    dry_run: bool = False,
    stop: Stop | None = None,
) -> Submission:
    """Submit the trials of a sweep that have no result to Slurm, and return at once.

    Args:
        sweep: what to run.
        profile: the cluster profile, or its file.
        out: the directory of the sweep, on a disk that the nodes share.
        retry: which results are put aside first, as in `paramz.sweeps.run`.
        changed: what happens to results of other code, as in `paramz.sweeps.run`.
        dry_run: only pack the trials. Nothing is written or submitted, and no Slurm is needed.
        stop: looked at before every array; those that are left are not submitted.

    Returns:
        What was, or would be, submitted. `paramz.sweeps.load` reads the results from ``out``.

    Raises:
        ValueError: a trial has no time limit, the sweep may use more than its budget allows, the
            directory holds the results of another training function, or the sweep cannot be
            refined.
        paramz.slurm.queue.SlurmError: a command of Slurm is missing or fails.
        SubmissionError: sbatch refuses an array.
    """
    if not isinstance(profile, Profile):
        profile = Profile.from_yaml(profile)
    store, stop = Store(Path(out).absolute()), stop or Stop()
    if dry_run:
        trials = {k: c for k, c in sweep.trials.items() if k not in store.finished()}
        return Submission(store.root, pack(sweep, profile, trials, *_max_jobs(profile)))
    live = trials_of(store, jobs_of(store))
    pack(sweep, profile, sweep.trials)  # what it refuses is refused before anything is written
    trials = prepare(sweep, store, retry, changed)
    if not trials and not live and (trials := next_round(sweep, store)):
        begin_round(store, trials)
    missing = {key: config for key, config in trials.items() if key not in live}
    max_array, room = _max_jobs(profile)
    if missing and room == 0:
        raise SubmissionError(
            "the accounting lets you submit no further job (MaxSubmitJobs, GrpSubmitJobs) while as "
            "many are queued; the same command submits the trials once some of them are over"
        )
    packing = pack(sweep, profile, missing, max_array, room)
    jobs: list[str] = []
    for array in packing.arrays:
        if stop.requested:
            break
        try:
            jobs.append(_submit(array, sweep, profile, store, missing))
        except Exception as error:
            raise SubmissionError(
                f"{error}\n{len(jobs)} of {len(packing.arrays)} arrays were submitted; "
                "the same command submits the rest"
            ) from error
    return Submission(store.root, packing, tuple(jobs), len(trials) - len(missing))


def _max_jobs(profile: Profile) -> tuple[int | None, int | None]:
    """How many jobs the cluster allows in an array and to the user; None where it does not say."""
    return queue.max_array_size(), queue.submittable(profile.account, profile.qos)


def _submit(
    array: Array, sweep: Sweep, profile: Profile, store: Store, trials: Mapping[str, Config]
) -> str:
    """Write the orders of an array's jobs and submit it; the id of the array."""
    from submitit.slurm.slurm import SlurmExecutor

    from paramz.slurm.job import Job

    name = uuid.uuid4().hex[:12]
    folder = store.root / "slurm" / "arrays" / name
    folder.mkdir(parents=True)
    for index, keys in enumerate(array.jobs):
        order = JobOrder(
            train=sweep.target,
            limits=sweep.limits,
            workers=array.workers,
            threads=array.need.cpus,
            gpus=array.need.gpus,
            minutes=array.need.minutes,
            silent_minutes=sweep.resources.silent_minutes,
            signal_seconds=profile.signal_seconds,
            trials=tuple((key, trials[key]) for key in keys),
        )
        order.write(folder / f"{index}.json")
    try:
        executor = SlurmExecutor(log_folder(store), max_num_timeout=_MAX_REQUEUES)
        executor.update_parameters(**parameters(array, profile, job_name(store), name))
        with executor.batch():
            jobs = [executor.submit(Job(str(folder / f"{i}.json"))) for i in range(len(array.jobs))]
    except Exception:
        shutil.rmtree(folder)
        raise
    return str(jobs[0].job_id).partition("_")[0]
