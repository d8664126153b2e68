"""What a pool and its worker processes send each other."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.config import Config
from paramz.sweeps.spec.limits import Limits

STOP = signal.SIGUSR1
"""The signal that asks a worker to stop; Slurm sends other ones, to every process of a job."""

Ending = dict[str, Any]
"""How a trial ended: ``status`` (that of a result, or "interrupted"), ``error``, ``traceback`` and
``metrics``."""


@dataclass(frozen=True)
class Order:
    """One attempt at a trial, as a pool sends it to a worker.

    Attributes:
        key: the key of the trial.
        config: its config.
        directory: its private directory.
        attempt: the number of the attempt.
        limits: when it is stopped early because of its loss.
        rank: which of the trial's processes the worker is, if it has several.
    """

    key: str
    config: Config
    directory: Path
    attempt: int
    limits: Limits
    rank: int = 0
