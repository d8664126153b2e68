"""Measure one model of a coordinate check: train it for a few steps and record its activations.

The first forward and backward pass do not depend on the learning rate, so they are shared between
learning rates, and the last step needs no backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from paramz.anatomy.paths import is_number, split
from paramz.anatomy.twins import match_modules
from paramz.apply.task import Task
from paramz.check.jobs import MODEL, CheckJob, Rows
from paramz.check.recording import Record, recording, rms
from paramz.optim.make import Measuring, make_optimizers
from paramz.plan.plan import Plan
from paramz.sweeps.spec.target import load_target
from paramz.theory.tables import parametrization as find_parametrization


def measure(job: CheckJob) -> Rows:
    """All rows of one scale and seed."""
    task = task_of(job)
    torch.manual_seed(job.seed)
    model, plan = _build(task, job)
    labels = _Labels(
        head=(plan.parametrization.name, job.optimizer, job.scale, job.seed),
        shown=None if job.axis == "width" else _shown(model, task, job),
        units=_branch_units(plan),
        roles=_module_roles(plan),
    )
    _without_dropout(model)
    batch = task.batch(0)
    start = copy.deepcopy(model.state_dict())
    with recording(model) as first:
        torch.autograd.backward(task.loss(model, batch))
    labels = replace(labels, roles={**labels.roles, **_model_role(plan, first)})
    sizes = {module: rms(output) for module, output in first.outputs.items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    rows: Rows = []
    for lr in job.lrs:
        model.load_state_dict(start)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizers = make_optimizers(plan, model, job.optimizer, lr=lr, **job.options)
        measuring = [o for o in optimizers if isinstance(o, Measuring)]
        if measuring:  # They measure in forward passes, and were made after the first one.
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(task.loss(model, batch))
        rows += labels.rows(lr, 0, "output", sizes)
        for step in range(1, job.steps + 1):
            for optimizer in optimizers:
                optimizer.step()
            last = step == job.steps
            with torch.set_grad_enabled(not last), recording(model, start if last else None) as now:
                value = task.loss(model, batch)
            if not last:
                model.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
            for quantity, found in _sizes(now, first).items():
                rows += labels.rows(lr, step, quantity, found)
        for optimizer in measuring:
            optimizer.close()
    return rows


def _build(task: Task, job: CheckJob) -> tuple[nn.Module, Plan]:
    """The model of a job, under its plan."""
    if job.axis == "width":
        model = task.build(job.scale)
        return model, task.parametrize_(model, job.parametrization, base_width=job.base)
    model = task.build(job.width, **{job.axis: job.scale})
    # A scheme without a rule for the axis has no base of another size.
    scaled = job.axis in find_parametrization(job.parametrization).scales
    base_sizes = {job.axis: job.base if scaled else job.scale}
    plan = task.parametrize_(
        model, job.parametrization, base_width=job.width, base_sizes=base_sizes
    )
    return model, plan


@dataclass(frozen=True)
class _Labels:
    """What stands in a row beside the number.

    Attributes:
        head: parametrization, optimizer, scale and seed.
        shown: module of this model -> module of the smallest one; None: the same names.
        units: modules whose output is measured in units of the branch factor.
        roles: module -> role of its main tensor.
    """

    head: tuple[Any, ...]
    shown: Mapping[str, str] | None
    units: Mapping[str, float]
    roles: Mapping[str, str]

    def rows(self, lr: float, step: int, quantity: str, sizes: Mapping[str, float]) -> Rows:
        """One row per module call that is shown."""
        rows: Rows = []
        for call, size in sizes.items():
            module, again, number = call.partition("#")
            name = module if self.shown is None or module == MODEL else self.shown.get(module)
            if name is not None:
                size /= self.units.get(module, 1.0)
                label, role = f"{name}{again}{number}", self.roles.get(module, "")
                rows.append((*self.head, lr, step, label, role, quantity, size))
        return rows


def _sizes(now: Record, first: Record) -> dict[str, dict[str, float]]:
    """Quantity -> module call -> root mean square, after a step."""
    before = first.outputs
    return {
        "output": {call: rms(output) for call, output in now.outputs.items()},
        "delta": {
            call: rms(output - before[call])
            for call, output in now.outputs.items()
            if call in before and output.shape == before[call].shape
        },
        "update": now.updates,
    }


def task_of(job: CheckJob) -> Task:
    """The task of a job, made if it is given by name."""
    if isinstance(job.task, Task):
        return job.task
    made = load_target(job.task)(dict(job.config), None)
    if not isinstance(made, Task):
        raise TypeError(f"{job.task} returned {type(made).__name__}, but has to return paramz.Task")
    return made


def _shown(model: nn.Module, task: Task, job: CheckJob) -> dict[str, str]:
    """Module of a model with more blocks or experts -> the smallest model's that it stands for.

    The output of block i of n is the state at relative depth (i + 1) / n and its input that at
    i / n. So of the blocks with the same twin it is the last one whose output is compared, and the
    first one for what is inside.
    """
    with torch.random.fork_rng(devices=[]):
        smallest = task.build(job.width, **{job.axis: job.base})
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for path, twin in match_modules(model, smallest).items():
        first.setdefault(twin, path)
        last[twin] = path
    numbered = {twin for twin in last if is_number(twin)}
    return {(last if twin in numbered else first)[twin]: twin for twin in last}


def _branch_units(plan: Plan) -> dict[str, float]:
    """Modules whose output is that of a residual branch -> the branch factor in it."""
    blocks = {row.block for row in plan.rows if row.block is not None}
    rulebook = plan.rulebook
    ends = {split(row.name)[0]: rulebook.branch_factor(row) for row in plan.rows if row.ends}
    ends |= plan.branches
    units = {}
    for path, factor in ends.items():
        while path not in blocks and path:
            units[path] = factor
            path, _ = split(path)
    return units


def _without_dropout(model: nn.Module) -> None:
    """Switch dropout off, whose noise would be taken for change; all else stays in train mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()


def _module_roles(plan: Plan) -> dict[str, str]:
    """Module path -> role of its main tensor; a tied readout is an output."""
    roles: dict[str, str] = {}
    for row in plan.rows:
        roles.setdefault(split(row.name)[0], row.role)
    for row in plan.rows:
        roles.update(dict.fromkeys(row.readouts, "output"))
    return roles


def _model_role(plan: Plan, record: Record) -> dict[str, str]:
    """The role of the model's own output: a readout's, unless it is as wide as the model."""
    if MODEL not in record.outputs:
        return {}
    widths = {row.shape[axis] for row in plan.rows for axis in row.growing}
    shape = record.outputs[MODEL].shape
    features = shape[1 if len(shape) > 3 else -1]  # channels of images stand second
    return {} if features in widths else {MODEL: "output"}
