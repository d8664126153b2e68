"""What a training function receives: its trial."""

import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramz.sweeps.running.halving import Race


@dataclass(frozen=True)
class Rules:
    """When a trial is ended before its time.

    Attributes:
        loss_limit: The trial has diverged if its loss exceeds this.
        halving: The arguments of `paramz.sweeps.running.halving.Race` beside the trial's own.
    """

    loss_limit: float | None = None
    halving: dict[str, str | int] | None = None


STOP = signal.SIGUSR1  # from the pool to its worker; Slurm sends others, and to everybody


class Diverged(Exception):
    """Raised by `Trial.log` when the loss is not finite or beyond the sweep's limit."""


@dataclass
class Trial:
    """One run of a training function: a private directory, a log of steps, a word when to stop.

    Attributes:
        directory: Private to the trial; survives preemption. Checkpoints go here.
        key: The key of the trial's config.
        attempt: 1 for the first attempt, more when the trial was interrupted before.
        loss_limit: A logged loss beyond this raises `Diverged`.
        rank: Which of the trial's processes this is, if it has several; only rank 0 is recorded.
        race: Its part in successive halving, if the sweep asks for that.

    Example:
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
    race: "Race | None" = None
    _stopping: bool = field(default=False, init=False, repr=False)
    _asked: bool = field(default=False, init=False, repr=False)

    @property
    def resumed(self) -> bool:
        """Whether the trial was started before: look in `directory` for a checkpoint."""
        return self.attempt > 1

    def log(self, step: int, **metrics: float) -> None:
        """Add a line to the trial's history, `history.jsonl` in its directory.

        A line is also the sign of life that `resources.silent_minutes` asks for. After a
        resumption a step may appear twice; the later line counts.

        Raises:
            Diverged: If `loss` is among the metrics and is NaN, infinite or over the limit.
            paramz.sweeps.running.halving.Stopped: If it has fallen behind in successive halving.
        """
        values = {name: float(value) for name, value in metrics.items()}
        line = {"step": step, "time": round(time.time(), 3)} | encoded(values)
        if self.rank == 0:
            with open(self.directory / "history.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if "loss" in values and diverged(values["loss"], self.loss_limit):
            raise Diverged(f"loss {values['loss']:g} at step {step}")
        if "loss" in values and self.race is not None:
            self.race.report(step, values["loss"])

    def should_stop(self) -> bool:
        """Whether to save a checkpoint and return now: the machine is wanted back.

        What the function returns after a True is not taken for its result; the trial is resumed
        later. A function that never asks is simply ended.
        """
        self._asked = True
        return self._stopping

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if not self._asked:
            sys.stdout.flush()
            os._exit(128 + STOP)
        self._stopping = True


def diverged(loss: float, limit: float | None) -> bool:
    """Whether a loss is NaN, infinite or over the limit."""
    return not math.isfinite(loss) or (limit is not None and loss > limit)


def encoded(metrics: dict[str, float]) -> dict[str, float | str]:
    """Metrics as JSON holds them: "nan", "inf" and "-inf" become strings.

    Example:
        >>> encoded({"loss": float("nan"), "accuracy": 0.5})
        {'loss': 'nan', 'accuracy': 0.5}
    """
    return {name: v if math.isfinite(v) else str(v) for name, v in metrics.items()}
