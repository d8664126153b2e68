"""The line in a user's own script by which ``paramz check --command`` sees its model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from paramz.check.recorder import Recorder

FOLDER, STEPS = "PARAMZ_RECORD", "PARAMZ_RECORD_STEPS"
"""The environment variables of a check: where a script is to record to, and how many updates."""

_RECORDERS: dict[str, Recorder] = {}  # of this process, by folder


def record(model: nn.Module, step: int) -> None:
    """Let ``paramz check --command`` see the activations of a model in your own training script.

    Call it in every iteration of the training loop, before the model is called. Outside of a check
    it does nothing but look up one environment variable. In a check it keeps the first batch, runs
    the model on it once more after every update without touching the run (random numbers, buffers
    and gradients stay as they are), and ends the script with exit code 0 when the check has enough.
    Of several processes, that of rank 0 records.

    Args:
        model: the model that is called; a compiled one, or one in DistributedDataParallel, too.
        step: how many updates were made.

    Raises:
        RuntimeError: in a check, if what is to be measured cannot be: the message says why.

    >>> from torch import nn
    >>> model = nn.Linear(2, 2)
    >>> for step in range(3):
    ...     record(model, step)
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    from paramz.check.recorder import Recorder  # only a check pays for this import

    if folder not in _RECORDERS:
        _RECORDERS[folder] = Recorder(Path(folder), int(os.environ[STEPS]), model)
    _RECORDERS[folder].at(model, int(step))
