"""Packing trials into jobs and jobs into arrays. Nothing here calls Slurm."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramz.slurm.profile import Profile
from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.resources import Need
from paramz.sweeps.spec.spec import Sweep

DEFAULT_MAX_ARRAY = 1001  # Slurm's own default for MaxArraySize
_EARLY = 60  # seconds that Slurm's warning may come before its time (man sbatch, --signal)


@dataclass(frozen=True)
class Array:
    """Jobs that ask for the same resources and are submitted together.

    Attributes:
        need: the resources of each trial.
        workers: how many trials of a job run at once.
        minutes: time limit of a job.
        jobs: the keys of the trials of each job.
    """

    need: Need
    workers: int
    minutes: int
    jobs: tuple[tuple[str, ...], ...]

    @property
    def gpus(self) -> int:
        """GPUs of a job on each of its nodes."""
        return math.ceil(self.workers * self.need.gpus)

    @property
    def cpus(self) -> int:
        """CPUs of each process that srun starts."""
        return self.workers * self.need.cpus

    @property
    def trials(self) -> int:
        """Number of trials in all jobs."""
        return sum(map(len, self.jobs))

    def hours(self, amount: int) -> float:
        """Hours of a resource, of which each node gives `amount`, if all jobs run to the limit."""
        return len(self.jobs) * self.need.nodes * amount * self.minutes / 60


@dataclass(frozen=True)
class Packing:
    """Everything that a submission sends to Slurm.

    Attributes:
        arrays: the arrays of jobs.
    """

    arrays: tuple[Array, ...]

    @property
    def trials(self) -> int:
        """Number of trials in all arrays."""
        return sum(array.trials for array in self.arrays)

    @property
    def jobs(self) -> int:
        """Number of jobs in all arrays."""
        return sum(len(array.jobs) for array in self.arrays)

    @property
    def gpu_hours(self) -> float:
        """Upper bound on the GPU-hours."""
        return sum(array.hours(array.gpus) for array in self.arrays)

    @property
    def cpu_hours(self) -> float:
        """Upper bound on the CPU-hours."""
        return sum(array.hours(array.cpus * _processes_per_node(array)) for array in self.arrays)


def pack(
    sweep: Sweep,
    profile: Profile,
    trials: Mapping[str, Config],
    max_array: int | None = None,
    max_jobs: int | None = None,
) -> Packing:
    """Pack trials into jobs and jobs into arrays.

    Trials that need the same resources share jobs: ``pack.workers`` of them run at once, in as many
    rounds as their time limits allow within ``pack.minutes``. Jobs take more rounds if there would
    otherwise be too many of them.

    Args:
        sweep: gives the resources and the budget.
        profile: gives the shape of jobs and limits of its own.
        trials: the configs of the trials to run, by key.
        max_array: how many jobs the cluster allows in an array (MaxArraySize); ``max_array`` of
            the profile takes precedence.
        max_jobs: how many more jobs the cluster allows the user to submit; the lower of this and
            ``max_jobs`` of the profile counts.

    Raises:
        ValueError: a trial has no time limit, or the jobs may use more than the budget allows.
    """
    groups: dict[Need, list[str]] = {}
    for key, config in trials.items():
        need = sweep.need(config)
        need = need if profile.gpus else need.model_copy(update={"gpus": 0.0})
        groups.setdefault(need, []).append(key)
    if any(need.minutes is None for need in groups):
        raise ValueError(
            "Slurm needs a time limit: give resources.minutes, a number or arithmetic such as "
            "2 + 30 * (width / 1024) ** 2"
        )
    allowed = max(1, profile.max_jobs if max_jobs is None else min(profile.max_jobs, max_jobs))
    stretch = 1
    while (jobs := _jobs(groups, profile, stretch)) > allowed and stretch < len(trials):
        stretch = max(stretch + 1, min(stretch * jobs // allowed, len(trials)))
    limit = profile.max_array or max_array or DEFAULT_MAX_ARRAY
    arrays = (_arrays(need, keys, profile, stretch, limit) for need, keys in groups.items())
    packing = Packing(tuple(array for group in arrays for array in group))
    _check_hours(sweep, packing)
    return packing


def _shape(need: Need, trials: int, profile: Profile, stretch: int) -> tuple[int, int]:
    """How many trials of a job run at once, and in how many rounds.

    A trial with several processes has a job to itself.
    """
    if need.processes > 1:
        return 1, 1
    workers = min(profile.pack.workers, trials)
    rounds = max(1, int(profile.pack.minutes // (need.minutes or 1))) * stretch
    return workers, min(rounds, math.ceil(trials / workers))


def _jobs(groups: Mapping[Need, list[str]], profile: Profile, stretch: int) -> int:
    return sum(
        math.ceil(len(keys) / math.prod(_shape(need, len(keys), profile, stretch)))
        for need, keys in groups.items()
    )


def _arrays(
    need: Need, keys: list[str], profile: Profile, stretch: int, limit: int
) -> Iterator[Array]:
    workers, rounds = _shape(need, len(keys), profile, stretch)
    size = workers * rounds
    # The warning must find the trials ended, as it would have the job requeued.
    slack = max(profile.slack_minutes, (profile.signal_seconds + _EARLY) / 60)
    minutes = math.ceil(rounds * (need.minutes or 1) + slack)
    jobs = [tuple(keys[i : i + size]) for i in range(0, len(keys), size)]
    for i in range(0, len(jobs), limit):
        yield Array(need, workers, minutes, tuple(jobs[i : i + limit]))


def _check_hours(sweep: Sweep, packing: Packing) -> None:
    for name in ("gpu_hours", "cpu_hours"):
        allowed, hours = getattr(sweep.budget, name), getattr(packing, name)
        if allowed is not None and hours > allowed:
            raise ValueError(
                f"the jobs may take {hours:.1f} {name.replace('_', '-')} by their time limits, "
                f"but budget.{name} allows {allowed:g}"
            )


def _processes_per_node(array: Array) -> int:
    """How many processes srun starts on each node."""
    return array.need.processes // array.need.nodes


def parameters(array: Array, profile: Profile, name: str, comment: str) -> dict[str, Any]:
    """The parameters of submitit's ``SlurmExecutor`` for an array."""
    asked: dict[str, Any] = {
        "job_name": name,
        "comment": comment,
        "time": array.minutes,
        "nodes": array.need.nodes,
        "ntasks_per_node": _processes_per_node(array),
        "cpus_per_task": array.cpus,
        "mem": f"{math.ceil(array.workers * array.need.memory_gb * 1024)}MB",
        "array_parallelism": profile.array_parallelism,
        "signal_delay_s": profile.signal_seconds,
        "setup": [
            *(f"export {name}={_quoted(value)}" for name, value in profile.environment.items()),
            *profile.setup,
        ],
        "stderr_to_stdout": True,
        "additional_parameters": {
            "requeue": True,
            **{option.replace("-", "_"): value for option, value in profile.sbatch.items()},
        },
    }
    for option in ("partition", "account", "qos", "constraint", "exclude", "nodelist"):
        asked[option] = getattr(profile, option)
    if array.gpus:
        kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
        asked["gres"] = f"gpu:{kind}{array.gpus}"
    srun = [f"--container-image={profile.container}"] if profile.container else []
    if array.need.processes > 1:
        srun.append("--kill-on-bad-exit=1")  # the other processes may wait for one that failed
        srun.append("--wait=60")  # and the first process ends last, unless one of the others hangs
    asked["srun_args"] = srun or None
    return {key: value for key, value in asked.items() if value is not None}


def _quoted(value: str | int | float) -> str:
    return "'" + str(value).replace("'", "'\\''") + "'"


def sbatch_text(array: Array, profile: Profile, name: str, folder: Path) -> str:
    """The batch script that submitit would submit for an array."""
    from submitit.slurm.slurm import _make_sbatch_string

    asked = parameters(array, profile, name, "paramz")
    if len(array.jobs) > 1:
        asked["map_count"] = len(array.jobs)
    command = f"{sys.executable} -u -m submitit.core._submit {folder}"
    return str(_make_sbatch_string(command=command, folder=folder, **asked))
