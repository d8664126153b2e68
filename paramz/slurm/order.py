"""The order of a job: the file that tells it which trials to run, and how.

Orders are plain JSON, and their keys never change. A job may therefore run with a later version of
paramz than the one that submitted it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from paramz.sweeps.running.process import Assignment
from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.limits import Limits
from paramz.sweeps.store.files import read_json


@dataclass(frozen=True)
class JobOrder:
    """What one job runs.

    Attributes:
        train: the training function.
        limits: when a trial is stopped early because of its loss.
        workers: how many trials run at once.
        threads: threads of each trial.
        gpus: GPUs of each trial.
        minutes: time limit of each trial.
        silent_minutes: how long a trial may log nothing.
        signal_seconds: how long before its time limit Slurm warns the job.
        trials: key and config of every trial.
    """

    train: str
    limits: Limits
    workers: int
    threads: int
    gpus: float
    minutes: float | None
    silent_minutes: float | None
    signal_seconds: int
    trials: tuple[tuple[str, Config], ...]

    def assignments(self) -> list[Assignment]:
        """The trials, with what each of them may use."""
        return [
            Assignment(key, config, self.threads, self.minutes, self.silent_minutes)
            for key, config in self.trials
        ]

    def write(self, path: Path) -> None:
        """Write the order to a file."""
        content = {
            "train": self.train,
            "rules": asdict(self.limits),
            "workers": self.workers,
            "threads": self.threads,
            "gpus": self.gpus,
            "minutes": self.minutes,
            "silent_minutes": self.silent_minutes,
            "signal_seconds": self.signal_seconds,
            "tasks": [{"key": key, "config": config} for key, config in self.trials],
        }
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> JobOrder:
        """Read the order of a file.

        Raises:
            OSError: the file cannot be read.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        limits = Limits(**content.pop("rules"))
        trials = tuple((trial["key"], trial["config"]) for trial in content.pop("tasks"))
        return cls(limits=limits, trials=trials, **content)


def keys_of(path: Path) -> set[str]:
    """The keys of the trials of an order; none if the file is missing or broken."""
    return {trial["key"] for trial in (read_json(path) or {}).get("tasks", ())}
