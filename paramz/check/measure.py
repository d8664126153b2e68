"""Measure one model of a coordinate check: train it for a few steps and record its activations.

The first forward and backward pass do not depend on the learning rate, so they are shared between
learning rates, and the last step needs no backward pass.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from paramz.anatomy.paths import split
from paramz.anatomy.twins import match_modules
from paramz.apply.hooks import require_hooks_ran
from paramz.apply.outputs import require_number
from paramz.apply.task import Task
from paramz.check.batch import batch_of
from paramz.check.downstream import last_of
from paramz.check.jobs import LOGITS, CheckJob, Rows, optimizer_name
from paramz.check.labels import (
    Labels,
    adapter_units,
    branch_units,
    growing,
    held_units,
    model_role,
    module_roles,
    slices_shown,
)
from paramz.check.named import task_of
from paramz.check.noise import Noise, without_dropout
from paramz.check.optimizers import optimizers_for, steps_taken
from paramz.check.recording import recording
from paramz.check.values import copied
from paramz.check.zeroed import has_faint, updates_from_zero
from paramz.optim.make import Measuring
from paramz.plan.plan import Plan
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
    _warn_of_rounding(model)
    labels = Labels(
        head=(plan.parametrization.name, optimizer_name(job.optimizer), job.scale, job.seed),
        shown=None if job.axis == "width" else _shown(model, task, job),
        units=branch_units(plan) | held_units(plan) | adapter_units(plan),
        roles=module_roles(plan),
        scaled=frozenset(plan.multipliers),
    )
    without_dropout(model)
    batch = batch_of(task, experts=job.axis == "experts")
    noise, repeats = Noise.of(model, job.seed), job.axis != "width"
    slices = slices_shown(plan)
    start = copy.deepcopy(model.state_dict())

    def forward() -> torch.Tensor:
        with noise.fixed():
            return require_number(
                task.loss(model, copied(batch)), "what loss(model, batch) returns"
            )

    with recording(model, repeats=repeats, slices=slices) as first:
        value = forward()
    last_maps = last_of(value, first.nodes, growing(model, plan))
    first.nodes.clear()  # They hold the graph.
    torch.autograd.backward(value)
    controlled = job.axis == "width" and has_faint(plan)
    passes = 1 + job.steps * len(job.lrs)
    done(1 / passes)
    require_hooks_ran(model, plan, first.called)
    roles = {**labels.roles, **model_role(plan, first), **dict.fromkeys(first.logits, LOGITS)}
    labels = replace(labels, roles=roles, last=frozenset(last_maps))
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
                recording(model, first, start=start if last else None, slices=slices) as now,
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
        if controlled:
            model.load_state_dict(start)
            alone = updates_from_zero(model, plan, job, lr, forward, first, slices)
            rows += labels.rows(lr, job.steps, "zeroed", alone)
    return rows


def _warn_of_rounding(model: nn.Module) -> None:
    """Warn of trained weights in half precision, whose updates are rounded, or rounded away."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            kind = str(parameter.dtype).removeprefix("torch.")
            least = torch.finfo(parameter.dtype).eps / 2
            warnings.warn(
                f"{name} is {kind}: an update below {least:.1g} of a weight is rounded away, at "
                "some widths more than at others, so the check measures that, too. Check the model "
                "in float32, under torch.autocast if it is trained so",
                stacklevel=3,
            )
            return


def _build(task: Task, job: CheckJob) -> tuple[nn.Module, Plan]:
    """The model of a job, under its plan."""
    if job.axis == "width":
        model = task.build(job.scale)
        return model, task.parametrize_(model, job.parametrization, base_width=int(job.base))
    model = task.build(job.width, **{job.axis: job.scale})
    # A scheme without a rule for the axis has no base of another size.
    scaled = job.axis in find_parametrization(job.parametrization).scales
    base_sizes = {job.axis: job.base if scaled else job.scale}
    plan = task.parametrize_(
        model, job.parametrization, base_width=job.width, base_sizes=base_sizes
    )
    return model, plan


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
    blocks = set()  # layers.0 and layer0, whose numbers differ, and not what is in them
    for path, twin in match_modules(model, smallest).items():
        first.setdefault(twin, path)
        last[twin] = path
        if split(path)[1] != split(twin)[1]:
            blocks.add(twin)
    outputs = {(last if twin in blocks else first)[twin]: twin for twin in last}
    return outputs, {path: twin for twin, path in first.items()}
