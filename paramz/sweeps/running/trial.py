"""The trial, which a training function receives together with its config."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from paramz.sweeps.running.messages import STOP

if TYPE_CHECKING:
    from paramz.sweeps.running.halving import Race


class Diverged(Exception):
    """Raised by `Trial.log` when the loss is not finite or exceeds the limit of the sweep."""


@dataclass
class Trial:
    """One run of a training function: its private directory, its history, and when to stop.

    Attributes:
        directory: private to the trial, and kept when it is interrupted; for its checkpoints.
        key: the key of the trial's config.
        attempt: 1 for the first attempt, more if the trial was interrupted before.
        loss_limit: a logged loss above this raises `Diverged`.
        rank: which of the trial's processes this is, if it has several; only rank 0 is recorded.
        race: its part in successive halving, if the sweep asks for that.

    >>> def train(config, trial):
    ...     for step in range(config["steps"]):
    ...         trial.log(step, loss=1 / (step + 1))
    ...     return {"loss": 1 / config["steps"]}
    >>> import tempfile
    >>> train({"steps": 4}, Trial(Path(tempfile.mkdtemp())))
    {'loss': 0.25}
    """

    directory: Path
    key: str = ""
    attempt: int = 1
    loss_limit: float | None = None
    rank: int = 0
    race: Race | None = None
    _stopping: bool = field(default=False, init=False, repr=False)
    _asked: bool = field(default=False, init=False, repr=False)

    @property
    def resumed(self) -> bool:
        """Whether there was an attempt before; if so, `directory` may contain a checkpoint.

        A trial that was put aside to begin afresh, as by ``--rerun changed``, is none.
        """
        return self.attempt > 1 and not (self.directory / f"before-{self.attempt - 1:04d}").is_dir()

    def log(self, step: int, **metrics: float) -> None:
        """Add a line to the trial's history, ``history.jsonl`` in its directory.

        A line is also the sign of life that ``resources.silent_minutes`` asks for. In a resumed
        trial a step may appear twice; the later line counts.

        Raises:
            Diverged: ``loss`` is among the metrics and is NaN, infinite or above the limit.
            paramz.sweeps.running.halving.Stopped: the trial has fallen behind in successive
                halving.
        """
        values = {name: float(value) for name, value in metrics.items()}
        line = {"step": int(step), "time": round(time.time(), 3)} | encoded(values)
        if self.rank == 0:
            with open(self.directory / "history.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if "loss" in values and diverged(values["loss"], self.loss_limit):
            raise Diverged(f"loss {values['loss']:g} at step {step}")
        if "loss" in values and self.race is not None:
            self.race.report(step, values["loss"])

    def should_stop(self) -> bool:
        """Whether to save a checkpoint and return now, because the trial is being interrupted.

        What the function returns after a True is not its result; the trial is resumed later. The
        process of a function that never asks is ended at once.
        """
        self._asked = True
        return self._stopping

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        """Handle the signal that asks this trial to stop."""
        if not self._asked:
            sys.stdout.flush()
            os._exit(128 + STOP)
        self._stopping = True


def diverged(loss: float, limit: float | None) -> bool:
    """Whether a loss is NaN, infinite or above the limit."""
    return not math.isfinite(loss) or (limit is not None and loss > limit)


def encoded(metrics: dict[str, float]) -> dict[str, float | str]:
    """Metrics as they are stored: JSON has no NaN and infinity, so these become strings.

    >>> encoded({"loss": float("nan"), "accuracy": 0.5})
    {'loss': 'nan', 'accuracy': 0.5}
    """
    return {name: v if math.isfinite(v) else str(v) for name, v in metrics.items()}
