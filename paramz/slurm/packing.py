"""Planning: which trials go into which jobs, which jobs into which arrays. Touches no Slurm."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramz.slurm.profile import Profile
from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.spec import Need, Sweep

DEFAULT_MAX_ARRAY = 1001  # Slurm's own default for MaxArraySize


@dataclass(frozen=True)
class Array:
    """Jobs of one shape, submitted at once.

    Attributes:
        need: The resources of each of their trials.
        workers: Trials at once in a job.
        minutes: Time limit of a job.
        jobs: The keys of each job's trials.
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
        """Trials in all jobs."""
        return sum(map(len, self.jobs))

    def hours(self, of: int) -> float:
        """Upper bound on resource hours: every job up to its time limit."""
        return len(self.jobs) * self.need.nodes * of * self.minutes / 60


@dataclass(frozen=True)
class Plan:
    """Everything that a submission would send to Slurm."""

    arrays: tuple[Array, ...]

    @property
    def trials(self) -> int:
        """Trials in all arrays."""
        return sum(array.trials for array in self.arrays)

    @property
    def jobs(self) -> int:
        """Jobs in all arrays."""
        return sum(len(array.jobs) for array in self.arrays)

    @property
    def gpu_hours(self) -> float:
        """Upper bound on GPU-hours."""
        return sum(array.hours(array.gpus) for array in self.arrays)

    @property
    def cpu_hours(self) -> float:
        """Upper bound on CPU-hours."""
        return sum(array.hours(array.cpus * _tasks(array)) for array in self.arrays)


def make_plan(
    sweep: Sweep,
    profile: Profile,
    trials: Mapping[str, Config],
    max_array: int | None = None,
    max_jobs: int | None = None,
) -> Plan:
    """Put trials into jobs and jobs into arrays.

    Trials of equal resources share jobs: `pack.workers` at once, in as many rounds as fit into
    `pack.minutes` by the trials' time limit; more rounds if there were more than `max_jobs` jobs.

    Args:
        sweep: Gives the resources and the budget.
        profile: Gives packing and limits.
        trials: What to run.
        max_array: The cluster's MaxArraySize; the profile's own goes first.
        max_jobs: Jobs that the cluster lets the user submit; the profile's own may be less.

    Raises:
        ValueError: If a trial has no time limit, or the plan exceeds the budget.
    """
    need_of = sweep.need
    groups: dict[Need, list[str]] = {}
    for key, config in trials.items():
        groups.setdefault(need_of(config), []).append(key)
    if any(need.minutes is None for need in groups):
        raise ValueError(
            "Slurm needs a time limit: give resources.minutes, a number or arithmetic such as "
            "2 + 30 * (width / 1024) ** 2"
        )
    allowed = min(profile.max_jobs, max_jobs or profile.max_jobs)
    stretch = 1
    while (jobs := _jobs(groups, profile, stretch)) > allowed and stretch < len(trials):
        stretch = max(stretch + 1, min(stretch * jobs // allowed, len(trials)))
    limit = profile.max_array or max_array or DEFAULT_MAX_ARRAY
    arrays = (_arrays(need, keys, profile, stretch, limit) for need, keys in groups.items())
    plan = Plan(tuple(array for group in arrays for array in group))
    _check_budget(sweep, plan)
    return plan


def _shape(need: Need, trials: int, profile: Profile, stretch: int) -> tuple[int, int]:
    """Trials at once in a job, and rounds of them; a trial of many processes has its own job."""
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
    minutes = math.ceil(rounds * (need.minutes or 1) + profile.slack_minutes)
    jobs = [tuple(keys[i : i + size]) for i in range(0, len(keys), size)]
    for i in range(0, len(jobs), limit):
        yield Array(need, workers, minutes, tuple(jobs[i : i + limit]))


def _check_budget(sweep: Sweep, plan: Plan) -> None:
    for name in ("gpu_hours", "cpu_hours"):
        allowed, planned = getattr(sweep.budget, name), getattr(plan, name)
        if allowed is not None and planned > allowed:
            raise ValueError(
                f"the plan may take {planned:.1f} {name.replace('_', '-')} by its time limits, "
                f"budget.{name} allows {allowed:g}"
            )


def _tasks(array: Array) -> int:
    """Processes that srun starts on each node."""
    return array.need.processes // array.need.nodes


def parameters(array: Array, profile: Profile, name: str, comment: str) -> dict[str, Any]:
    """What submitit's SlurmExecutor is told."""
    asked: dict[str, Any] = {
        "job_name": name,
        "comment": comment,
        "time": array.minutes,
        "nodes": array.need.nodes,
        "ntasks_per_node": _tasks(array),
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
        srun.append("--kill-on-bad-exit=1")  # the others may wait for the one that failed
    asked["srun_args"] = srun or None
    return {key: value for key, value in asked.items() if value is not None}


def _quoted(value: str | int | float) -> str:
    return "'" + str(value).replace("'", "'\\''") + "'"


def sbatch_text(array: Array, profile: Profile, name: str, folder: Path) -> str:
    """The batch script that submitit would submit; needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    asked = parameters(array, profile, name, "paramz")
    if len(array.jobs) > 1:
        asked["map_count"] = len(array.jobs)
    command = f"{sys.executable} -u -m submitit.core._submit {folder}"
    return str(_make_sbatch_string(command=command, folder=folder, **asked))
