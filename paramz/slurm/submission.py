"""Sending a plan to Slurm, and knowing later what of it still lives.

Before an array is submitted, what its jobs will run is written to `slurm/arrays/<name>/<i>.json`
in the sweep's directory, and the array carries that name as its comment. So whoever looks later,
on whatever machine, can tell from one squeue which trials are taken care of, even if the
submitting process died on the way. Whatever the queue says, a trial is run only by the process
that claims it (paramz.sweeps.store.attempt).
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from paramz.slurm import queue
from paramz.slurm.packing import Array, Plan, make_plan, parameters
from paramz.slurm.profile import Profile
from paramz.sweeps.running.refine import add_round
from paramz.sweeps.running.runner import Retry, prepare
from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.files import read_json
from paramz.sweeps.store.store import Store

_MANY = 100  # requeues that submitit may do; trials are bounded by their own time limit


@dataclass(frozen=True)
class Submission:
    """What was submitted.

    Attributes:
        directory: The directory of the sweep.
        plan: Trials, jobs and arrays.
        jobs: Ids of the arrays, in the plan's order.
        skipped: Trials that queued or running jobs see to already.
    """

    directory: Path
    plan: Plan
    jobs: tuple[str, ...] = ()
    skipped: int = 0


class SubmissionError(RuntimeError):
    """sbatch refused; what was submitted before stays, rerunning submits the rest."""


def submit(
    sweep: Sweep,
    profile: Profile | str | Path,
    out: str | Path,
    *,
    retry: Retry = "failed",
    dry_run: bool = False,
) -> Submission:
    """Submit what a sweep is missing to Slurm; returns at once.

    Args:
        sweep: What to run.
        profile: The cluster profile, or its file.
        out: The directory of the sweep, on a disk that the nodes share.
        retry: Which results to throw away first, as in `paramz.sweeps.run`.
        dry_run: Only plan: nothing is written or submitted, no Slurm is needed.

    Returns:
        What was (or would be) submitted. Results come with `paramz.sweeps.load(out)`.

    Raises:
        ValueError: If the plan exceeds the budget or lacks a time limit.
        paramz.slurm.queue.SlurmError: If Slurm's commands are missing or fail.
        SubmissionError: If sbatch refuses an array.
    """
    if not isinstance(profile, Profile):
        profile = Profile.from_yaml(profile)
    store = Store(Path(out).absolute())
    if dry_run:
        trials = {k: c for k, c in sweep.trials.items() if k not in store.finished()}
        return Submission(store.root, make_plan(sweep, profile, trials, *_limits(profile)))
    live = live_trials(store)
    make_plan(sweep, profile, sweep.trials)  # refuses before anything is touched
    trials = prepare(sweep, store, retry)
    if not trials and not live:
        trials = add_round(sweep, store)
    missing = {key: config for key, config in trials.items() if key not in live}
    plan = make_plan(sweep, profile, missing, *_limits(profile))
    jobs: list[str] = []
    for array in plan.arrays:
        try:
            jobs.append(_submit(array, sweep, profile, store, missing))
        except Exception as error:
            raise SubmissionError(
                f"{error}\n{len(jobs)} of {len(plan.arrays)} arrays were submitted; "
                "the same command submits the rest"
            ) from error
    return Submission(store.root, plan, tuple(jobs), len(trials) - len(missing))


def _limits(profile: Profile) -> tuple[int | None, int | None]:
    """Jobs in an array and jobs of the user, as far as the cluster tells."""
    return queue.max_array_size(), queue.max_submitted(profile.account, profile.qos)


def job_name(store: Store) -> str:
    """The name of a sweep's jobs: the directory's own, and a hash of where it is."""
    path = store.root.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def live_trials(store: Store) -> set[str]:
    """The trials that waiting or running jobs see to.

    Raises:
        paramz.slurm.queue.SlurmError: If the queue cannot be asked.
    """
    return trials_of(store, queue.queued(job_name(store)))


def trials_of(store: Store, jobs: Iterable[queue.QueuedJob]) -> set[str]:
    """The trials that the given jobs of a sweep see to."""
    keys: set[str] = set()
    for job in jobs:
        order = read_json(store.root / "slurm" / "arrays" / job.comment / f"{job.element}.json")
        keys.update(task["key"] for task in (order or {}).get("tasks", ()))
    return keys


def _submit(
    array: Array, sweep: Sweep, profile: Profile, store: Store, trials: Mapping[str, Config]
) -> str:
    """Write what an array's jobs will run, and submit it."""
    from submitit.slurm.slurm import SlurmExecutor

    from paramz.slurm.job import Job

    name = uuid.uuid4().hex[:12]
    folder = store.root / "slurm" / "arrays" / name
    folder.mkdir(parents=True)
    for index, keys in enumerate(array.jobs):
        order = _order(array, sweep, profile, keys, trials)
        (folder / f"{index}.json").write_text(json.dumps(order), encoding="utf-8")
    try:
        executor = SlurmExecutor(store.root / "slurm" / "logs", max_num_timeout=_MANY)
        executor.update_parameters(**parameters(array, profile, job_name(store), name))
        with executor.batch():
            jobs = [executor.submit(Job(str(folder / f"{i}.json"))) for i in range(len(array.jobs))]
    except Exception:
        shutil.rmtree(folder)
        raise
    return str(jobs[0].job_id).partition("_")[0]


def _order(
    array: Array,
    sweep: Sweep,
    profile: Profile,
    keys: tuple[str, ...],
    trials: Mapping[str, Config],
) -> dict[str, object]:
    """What one job runs, as plain data: a change of code between now and then breaks nothing."""
    return {
        "train": sweep.train,
        "rules": asdict(sweep.rules),
        "workers": array.workers,
        "threads": array.need.cpus,
        "gpus": array.need.gpus,
        "minutes": array.need.minutes,
        "silent_minutes": sweep.resources.silent_minutes,
        "signal_seconds": profile.signal_seconds,
        "tasks": [{"key": key, "config": trials[key]} for key in keys],
    }
