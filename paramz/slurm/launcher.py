"""The launcher of a Slurm cluster, as the command line uses it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from paramz.sweeps.running.launcher import Launcher, LaunchReport, Live, Options
from paramz.sweeps.running.wording import counted

if TYPE_CHECKING:
    from paramz.slurm.packing import Array, Packing
    from paramz.slurm.profile import Profile
    from paramz.sweeps.spec.spec import Sweep
    from paramz.sweeps.store.store import Store

# Everything else is imported where it is used: `paramz status` imports this module for every sweep,
# and must start fast.


def _accepts(options: Options) -> bool:
    return options.profile is not None


def _profile(options: Options) -> Profile:
    from paramz.slurm.profile import Profile

    assert options.profile is not None  # see _accepts
    return Profile.from_yaml(options.profile)


def _submit(sweep: Sweep, store: Store, options: Options) -> LaunchReport:
    from paramz.slurm.submission import submit

    done = submit(
        sweep,
        _profile(options),
        store.root,
        retry=options.retry,
        changed=options.changed,
        stop=options.stop,
    )
    lines = []
    if done.skipped:
        lines.append(f"{counted(done.skipped, 'trial')} already with jobs that wait or run")
    if done.jobs:
        lines.append(f"{_sentence(done.packing)}: submitted as {', '.join(done.jobs)}")
        lines.append(f"paramz watch {store.root}")
    else:
        lines.append("nothing to submit")
    document = {"directory": str(done.directory), "jobs": done.jobs} | _numbers(done.packing)
    return LaunchReport(document, tuple(lines))


def _preview(sweep: Sweep, store: Store, options: Options) -> LaunchReport:
    from paramz.slurm.submission import submit
    from paramz.sweeps.running.runner import check_budget

    check_budget(sweep)
    profile = _profile(options)
    packing = submit(sweep, profile, store.root, dry_run=True).packing
    scripts = [_script(array, profile, store) for array in packing.arrays]
    lines = [
        f"{_heading(array)}\n{script}"
        for array, script in zip(packing.arrays, scripts, strict=True)
    ]
    arrays = [
        {
            "jobs": len(array.jobs),
            "trials": array.trials,
            "trials_at_once": array.workers,
            "minutes": array.minutes,
            "script": script,
        }
        for array, script in zip(packing.arrays, scripts, strict=True)
    ]
    document = {"directory": str(store.root), "arrays": arrays} | _numbers(packing)
    return LaunchReport(document, (*lines, f"# {_sentence(packing)}; nothing was submitted"))


def _live(store: Store) -> Live:
    """The jobs of a sweep and their trials; a sweep that was never submitted has none."""
    if not (store.root / "slurm").is_dir():
        return Live()
    from paramz.slurm.live import jobs_of, trials_of

    jobs = jobs_of(store)
    states = Counter(job.state.lower() for job in jobs)
    reasons = Counter(job.reason for job in jobs if job.reason)
    return Live(dict(states), trials_of(store, jobs), dict(reasons))


def _cancel(store: Store) -> list[str]:
    """The jobs that were cancelled; of a sweep that was never submitted no queue is asked."""
    if not (store.root / "slurm").is_dir():
        return []
    from paramz.slurm import queue
    from paramz.slurm.live import jobs_of

    jobs = [job.job for job in jobs_of(store)]
    if jobs:
        queue.cancel(jobs)
    return jobs


def _script(array: Array, profile: Profile, store: Store) -> str:
    from paramz.slurm.live import job_name
    from paramz.slurm.packing import sbatch_text

    folder = store.root.absolute() / "slurm" / "logs"
    return sbatch_text(array, profile, job_name(store), folder)


def _heading(array: Array) -> str:
    rounds = math.ceil(max(map(len, array.jobs)) / array.workers)
    return (
        f"# array of {counted(len(array.jobs), 'job')}, {counted(array.trials, 'trial')}: "
        f"{array.workers} at once, {counted(rounds, 'round')}, {array.minutes} minutes a job"
    )


def _numbers(packing: Packing) -> dict[str, Any]:
    return {
        "trials": packing.trials,
        "jobs_planned": packing.jobs,
        "gpu_hours": round(packing.gpu_hours, 2),
        "cpu_hours": round(packing.cpu_hours, 2),
    }


def _sentence(packing: Packing) -> str:
    trials, jobs = counted(packing.trials, "trial"), counted(packing.jobs, "job")
    return (
        f"{trials} in {jobs} in {counted(len(packing.arrays), 'array')}, at most "
        f"{packing.gpu_hours:.1f} GPU-hours and {packing.cpu_hours:.1f} CPU-hours"
    )


SLURM = Launcher(
    accepts=_accepts,
    submit=_submit,
    preview=_preview,
    live=_live,
    cancel=_cancel,
    returns_at_once=True,
)
