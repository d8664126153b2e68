"""Measure one model of a coordinate check: train it for a few steps and record its activations.

The first forward and backward pass do not depend on the learning rate, so they are shared between
learning rates, and the last step needs no backward pass.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from paramz.anatomy.paths import is_number, split
from paramz.anatomy.twins import match_modules
from paramz.apply.hooks import require_hooks_ran
from paramz.apply.task import Task
from paramz.check.downstream import last_of
from paramz.check.jobs import MODEL, CheckJob, Rows, input_of, optimizer_name
from paramz.check.named import task_of
from paramz.check.noise import Noise
from paramz.check.optimizers import optimizers_for, steps_taken
from paramz.check.recording import Record, recording
from paramz.check.update import COMPUTING
from paramz.check.values import copied
from paramz.optim.make import Measuring
from paramz.plan.plan import Plan
from paramz.plan.row import Row
from paramz.theory.tables import parametrization as find_parametrization


def measure(job: CheckJob, done: Callable[[float], None] = lambda share: None) -> Rows:
    """All rows of one scale and seed.

    Args:
        job: which model, and how it is trained.
        done: told after every forward pass what share of them was made.
    """
    task = task_of(job)
    torch.manual_seed(job.seed)
    model, plan = _build(task, job)
    labels = _Labels(
        head=(plan.parametrization.name, optimizer_name(job.optimizer), job.scale, job.seed),
        shown=None if job.axis == "width" else _shown(model, task, job),
        units=_branch_units(plan) | _held_units(plan),
        roles=_module_roles(plan),
        scaled=frozenset(plan.multipliers),
    )
    _without_dropout(model)
    batch, noise, repeats = task.batch(0), Noise.of(model, job.seed), job.axis != "width"
    start = copy.deepcopy(model.state_dict())

    def forward() -> torch.Tensor:
        with noise.fixed():
            return task.loss(model, copied(batch))

    with recording(model, repeats=repeats) as first:
        value = forward()
    last_maps = last_of(value, first.nodes, _growing(model, plan))
    first.nodes.clear()  # They hold the graph.
    torch.autograd.backward(value)
    passes = 1 + job.steps * len(job.lrs)
    done(1 / passes)
    require_hooks_ran(model, plan, first.called)
    labels = replace(
        labels, roles={**labels.roles, **_model_role(plan, first)}, last=frozenset(last_maps)
    )
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    rows: Rows = []
    for number, lr in enumerate(job.lrs):
        model.load_state_dict(start)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizers = optimizers_for(plan, model, job, lr)
        measuring = [o for o in optimizers if isinstance(o, Measuring)]
        if measuring:  # They measure in forward passes, and were made after the first one.
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(forward())
        before = {
            "output": first.sizes,
            "input": first.inputs,
            "expected": first.expected,
            "reach": first.reaches,
        }
        for quantity, numbers in before.items():
            rows += labels.rows(lr, 0, quantity, numbers)
        for step in range(1, job.steps + 1):
            for optimizer in optimizers:
                optimizer.step()
            if step == 1:
                taken = steps_taken(model, start, optimizers)
                shown = {module: size for module, size in taken.items() if module in first.sizes}
                rows += labels.rows(lr, 1, "step", shown)
            last = step == job.steps
            with (
                torch.set_grad_enabled(not last),
                recording(model, first, start=start if last else None) as now,
            ):
                value = forward()
            done((1 + number * job.steps + step) / passes)
            if not last:
                model.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
            found = {
                "output": now.sizes,
                "delta": now.changes,
                "update": now.updates,
                "aligned": now.aligned,
            }
            for quantity, numbers in found.items():
                rows += labels.rows(lr, step, quantity, numbers)
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
        shown: module of this model -> module of the smallest one, for outputs and for inputs; None:
            the same names.
        units: modules whose output is measured in units of the branch factor, or of a factor that
            makes up for one in forward code.
        roles: module -> role of its main tensor.
        last: rows after which nothing that grows is applied.
        scaled: modules whose input the plan multiplies, so that its size before that says nothing.
    """

    head: tuple[Any, ...]
    shown: tuple[Mapping[str, str], Mapping[str, str]] | None
    units: Mapping[str, float]
    roles: Mapping[str, str]
    last: frozenset[str] = frozenset()
    scaled: frozenset[str] = frozenset()

    def rows(self, lr: float, step: int, quantity: str, sizes: Mapping[str, float]) -> Rows:
        """One row per module call that is shown."""
        rows: Rows = []
        for call, size in sizes.items():
            row, again, number = call.partition("#")
            module = row.removesuffix(input_of(""))
            own = row == module
            if not own and module in self.scaled:
                continue
            if self.shown is None or row == MODEL:
                name: str | None = module
            else:
                name = self.shown[0 if own else 1].get(module)
            if name is None:
                continue
            unit = self.units.get(module, 1.0) if own else 1.0
            role = self.roles.get(module, "") if own else ""
            label = f"{name}{row[len(module) :]}{again}{number}"
            last = call in self.last
            rows.append((*self.head, lr, step, label, role, quantity, size / unit, last))
        return rows


def _shown(
    model: nn.Module, task: Task, job: CheckJob
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Module of a model with more blocks or experts -> the smallest model's that it stands for.

    The output of block i of n is the state at relative depth (i + 1) / n and its input that at
    i / n. So of the blocks with the same twin it is the last one whose output is compared, and the
    first one for its input and for what is inside.
    """
    with torch.random.fork_rng(devices=[]):
        smallest = task.build(job.width, **{job.axis: job.base})
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for path, twin in match_modules(model, smallest).items():
        first.setdefault(twin, path)
        last[twin] = path
    numbered = {twin for twin in last if is_number(twin)}
    outputs = {(last if twin in numbered else first)[twin]: twin for twin in last}
    return outputs, {path: twin for twin, path in first.items()}


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


def _held_units(plan: Plan) -> dict[str, float]:
    """Layers before a factor in forward code -> what the plan has them multiplied by for it.

    Their product with the code's factor keeps its size, and not what they put out by themselves.
    """
    units = dict(plan.behind)
    for row in plan.rows:
        path = split(row.name)[0]
        if row.role == "input" and path in plan.multipliers and path not in row.readouts:
            # What is left beside the multiplier of the scheme.
            own = plan.rulebook.of_role(row.role).multiplier(row.ratios)
            units[path] = plan.multipliers[path] / own
    return units


def _without_dropout(model: nn.Module) -> None:
    """Switch dropout off, whose noise would be taken for change; all else stays in train mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()


def _module_roles(plan: Plan) -> dict[str, str]:
    """Module path -> role of its main tensor, the largest one; a tied readout is an output."""
    largest: dict[str, Row] = {}
    for row in plan.rows:
        # What torch computes a weight from belongs to the module that has the weight.
        path = split(row.name)[0].partition(f".{COMPUTING}.")[0]
        if path not in largest or math.prod(row.shape) > math.prod(largest[path].shape):
            largest[path] = row
    roles: dict[str, str] = {path: row.role for path, row in largest.items()}
    for row in plan.rows:
        roles.update(dict.fromkeys(row.readouts, "output"))
    return roles


def _growing(model: nn.Module, plan: Plan) -> list[nn.Parameter]:
    """The matrices of a model that grow with width."""
    names = {row.name for row in plan.rows if row.growing and len(row.shape) > 1}
    return [p for name, p in model.named_parameters() if name in names]


def _model_role(plan: Plan, record: Record) -> dict[str, str]:
    """The role of the model's own output: a readout's, unless it is as wide as the model."""
    if MODEL not in record.outputs:
        return {}
    widths = {row.shape[axis] for row in plan.rows for axis in row.growing}
    shape = record.outputs[MODEL].shape
    features = shape[1 if len(shape) > 3 else -1]  # channels of images stand second
    return {} if features in widths else {MODEL: "output"}
