"""A base whose own forward pass fails: a wrong config, or sizes that do not divide.

Where a run would show something and the base does not run, what follows from names alone is easily
wrong. Whether the inputs or the meta device are at fault is told by the other models: one of them
runs with the same.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

from torch import nn

from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.probes import Probes
from paramz.anatomy.runs import copied_to, device_of, on_meta, run


def own_failure(probes: Probes, model: nn.Module, example: Any = None) -> str | None:
    """The error with which the base fails, where that is its own fault; None if it runs, or may.

    Args:
        probes: base and wider model.
        model: the target.
        example: what to call the model with; inputs are guessed if it is left out.

    >>> class Heads(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.first = nn.Linear(4, width)
    ...     def forward(self, x):
    ...         return self.first(x).unflatten(-1, (6, -1)).sum(-1)
    >>> print(own_failure(Probes(Heads(16), Heads(32)), Heads(48)))
    RuntimeError: unflatten: Provided sizes [6, -1] don't multiply up to the size of dim 1 (16) ...
    """
    errors = []
    for inputs in possible_inputs(probes.base, example):
        errors.append(_error(probes.base, inputs))
        if errors[-1] is None:
            return None
    for other in (probes.wider, model):
        for error, inputs in zip(errors, possible_inputs(other, example), strict=False):
            if _error(other, inputs) is None:
                return error
    return None


def _error(model: nn.Module, inputs: Any) -> str | None:
    """The error of a run on the meta device, which says nothing of others; None without one."""
    try:
        with warnings.catch_warnings(), on_meta(model):
            warnings.simplefilter("ignore")  # of code that meets a guess
            run(model, copied_to(device_of(model), inputs), nullcontext(), None)
    except Exception as error:  # any model's own code, on inputs that it may not like
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    return None
