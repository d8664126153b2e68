"""The task of a check, where it is given by the name of a function."""

from __future__ import annotations

import inspect
from typing import Any

from paramz.apply.task import Task
from paramz.check.jobs import CheckJob
from paramz.sweeps.spec.target import load_object, load_target

# What a function that builds a model calls its first parameter.
_SIZES = ("width", "dim", "d_model", "hidden", "hidden_size", "n_embd")


def task_of(job: CheckJob) -> Task:
    """The task of a job, made if it is given by name."""
    if isinstance(job.task, Task):
        return job.task
    return named_task(job.task, dict(job.config))


def named_task(target: str, config: dict[str, Any]) -> Task:
    """The task that a function makes of a config; a training function is refused before it runs.

    Raises:
        TypeError: the function takes a trial, says that it returns something else, or does.
    """
    function = load_target(target)
    signature = inspect.signature(load_object(target))
    name, first = target.rpartition(":")[2], next(iter(signature.parameters), "")
    returned = getattr(signature.return_annotation, "__name__", str(signature.return_annotation))
    if sum(each.default is each.empty for each in signature.parameters.values()) == 2:
        found = f"{name} takes ({', '.join(signature.parameters)}), as training functions do"
    elif first in _SIZES or signature.parameters[first].annotation in (int, "int"):
        found = f"{name} takes {first}, as functions do that build a model"
    elif "Task" in returned or signature.return_annotation is signature.empty:
        made = function(config, None)
        if isinstance(made, Task):
            return made
        found = f"{name} returned {type(made).__name__}"
    else:
        found = f"{name} returns {returned}"
    raise TypeError(
        f"{found}, and this needs a task: a function (config) -> paramz.Task(build, batch), where "
        "build(width) returns the model and batch(step) what it is trained on. The project that "
        f"paramz init writes has one (train_lm.py:task), and {target} may have one beside it"
    )
