"""A coordinate check as a sweep: one trial per scale and seed, run wherever sweeps run.

Imports torch only where a trial is run.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from paramz.check.jobs import Check, CheckJob, make_jobs, optimizer_name, table
from paramz.sweeps.running.changed import of_other_code, sentence
from paramz.sweeps.spec.code import code_of
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.store.files import read_json, write_over

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from paramz.sweeps.running.trial import Trial
    from paramz.sweeps.spec.config import Config
    from paramz.sweeps.store.record import Record
    from paramz.sweeps.store.store import Store

ROWS, LINES = "rows.json", "recorded.jsonl"
"""Files of a trial: what was measured, and of a script a line per step before that."""


def check_sweep(task: str, *, minutes: float, **arguments: Any) -> Sweep:
    """The sweep that measures what `paramz.coord_check` does.

    Args:
        task: the name of a function that returns a `paramz.Task`. It is part of every config: a
            path that is relative to the working directory keeps the results of a moved project.
        minutes: time limit of one model.
        **arguments: the attributes of `paramz.check.jobs.Check`, as far as JSON can hold them.

    Raises:
        ValueError: fewer than two scales, or more than one kind of them.
        TypeError: an optimizer that is not given by name.

    >>> sweep = check_sweep("lab:task", minutes=5, widths=[64, 128], seeds=2)
    >>> [(config["scale"], config["seed"]) for config in sweep.configs()]
    [(128, 0), (128, 1), (64, 0), (64, 1)]
    """
    check = Check(**arguments)
    if not isinstance(check.optimizer, str):
        raise TypeError(
            f"optimizer={optimizer_name(check.optimizer)}: the jobs of a cluster are handed over "
            "as text, so an optimizer has to be given by its name, such as 'adamw'; a class or a "
            "function is for paramz.coord_check"
        )
    jobs = [asdict(job) for job in make_jobs(task, check)]
    axes = {name: list(dict.fromkeys(job[name] for job in jobs)) for name in ("scale", "seed")}
    shared = {name: value for name, value in jobs[0].items() if name not in axes}
    return Sweep.model_validate(
        {
            "train": f"{__name__}:measure_trial",
            "base": shared | {"lrs": list(shared["lrs"])},
            "axes": axes,
            "resources": {"minutes": minutes},
        }
    )


def measure_trial(config: Config, trial: Trial) -> dict[str, float]:
    """The training function of such a sweep: the rows go to a file in the trial's directory.

    Returns:
        The loss after the last step at the last learning rate.
    """
    from paramz.check.batch import batch_of
    from paramz.check.measure import measure
    from paramz.check.named import task_of

    job = CheckJob(**config | {"lrs": tuple(config["lrs"])})
    task = task_of(job)
    losses: list[float] = []

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        value = task.loss(model, batch)
        losses.append(value.item())
        return value

    batch = batch_of(task, experts=job.axis == "experts")
    rows = measure(replace(job, task=replace(task, loss=loss, batch=lambda step: batch)))
    write_over(trial.directory / ROWS, json.dumps({"rows": rows}))
    return {"loss": losses[-1]}


def batch_concerns(sweep: Sweep) -> list[str]:
    """What is to be said of the batch of such a sweep before it is measured.

    A batch that cannot be made here, such as on a login node without the data, is said to be one.
    """
    from paramz.check.batch import concerns
    from paramz.check.named import task_of

    config = next(sweep.configs())
    try:
        return concerns(task_of(CheckJob(**config | {"lrs": tuple(config["lrs"])})).batch(0))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return [f"whether the batch is large enough is not known here: it cannot be made ({text})"]


def gather(sweep: Sweep, store: Store) -> pd.DataFrame | None:
    """The table of a check whose trials all have a result; None if some have none yet.

    Raises:
        ValueError: a trial failed, or the rows of one were lost.

    Warns:
        UserWarning: trials were measured with other code than there is now.
    """
    rows: list[list[Any]] = []
    records: list[Record] = []
    for key, config in sweep.trials.items():
        record = store.read(key)
        if record is None:
            return None
        if record["status"] == "failed":
            raise ValueError(
                f"{config['axis']} {config['scale']}, seed {config['seed']}: {record['error']}\n"
                f"paramz logs {store.root} {key} tells more; paramz retry {store.root} repeats it"
            )
        found = read_json(store.trial(key) / ROWS)
        if found is None:
            raise ValueError(
                f"{store.trial(key) / ROWS} is missing or broken; "
                f"paramz retry {store.root} --which all measures again"
            )
        rows += found["rows"]
        records.append(record)
    tell_of_other_code(sweep, store, records, str(sweep.base["task"]))
    return table(sweep.base["axis"], rows)  # type: ignore[arg-type]


def tell_of_other_code(sweep: Sweep, store: Store, records: list[Record], name: str) -> None:
    """Warn of results that were measured with other code than the named function has now."""
    code = code_of(sweep.target, sweep.base)
    if other := of_other_code(store, sweep.target, records):
        said = sentence(len(other), name, code["source"])
        warnings.warn(f"{said} (both of paramz retry {store.root})", stacklevel=3)
