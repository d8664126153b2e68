"""Coordinate check: train models of several sizes for a few steps and measure activations.

The sizes differ in width, or in depth, or in the number of experts. Under a parametrization that
transfers, every activation's change is as large at one of them as at another (Yang et al. 2022,
TP-V, appendix D.1). The judgement is in `paramz.judge`.

The first forward and backward pass do not depend on the learning rate, so they are shared between
learning rates, and the last step needs no backward pass.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from paramz.anatomy.branches import Branches
from paramz.anatomy.twins import match_modules
from paramz.apply.task import Task, default_loss
from paramz.check.jobs import Job, Rows, make_jobs, table
from paramz.check.recording import recording, rms
from paramz.optim.make import Measuring, make_optimizers
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides
from paramz.theory.rules import Parametrization
from paramz.theory.tables import parametrization as find_parametrization

if TYPE_CHECKING:
    import pandas as pd


def coord_check(
    build: Callable[..., nn.Module] | Task | str,
    batch: Any = None,
    *,
    loss: Callable[[nn.Module, Any], torch.Tensor] = default_loss,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    experts: Sequence[int] | None = None,
    base_width: int | None = None,
    parametrization: str | Parametrization = "mup",
    optimizer: str = "adamw",
    lr: float | Sequence[float] = 2**-8,
    steps: int = 3,
    seeds: int | Sequence[int] = 3,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """Measure the size of every module's output, and of its change, over scales and steps.

    Over depths, blocks at the same relative depth are compared, under their names in the shallowest
    model, and modules whose output is that of a residual branch are measured before the branch
    factor. Over experts, the first ones are compared.

    Args:
        build: ``width -> model``, with a keyword ``depth`` or ``experts`` to check over those; or a
            `Task`; or the name of a function that returns one, such as
            ``"sweeps/train_lm.py:task"``.
        batch: the batch trained on at every step (needed with a plain ``build``).
        loss: ``(model, batch) -> scalar``; the default knows pairs and Hugging Face mappings.
        widths: model widths, (64, 128, 256, 512) if nothing else is varied; four or more over a
            ratio of 8 make a useful slope.
        depths: numbers of blocks instead; the smallest is the base.
        experts: numbers of experts instead; the smallest is the base.
        base_width: the base of the parametrization, by default the smallest width; over depths or
            experts the width of all models, by default 64.
        parametrization: name or table.
        optimizer: name of a torch optimizer; ``"muon"`` takes AdamW for all but hidden matrices.
        lr: base learning rate, or several.
        steps: updates, so that there are steps 0 ... ``steps``.
        seeds: number of seeds, or the seeds.
        roles: overrides, as for `parametrize_`.
        branches: residual branches, as for `parametrize_`.
        config: passed to the task function when ``build`` is its name.
        workers: processes with one thread each. Where processes cannot be forked (Windows, or
            CUDA in use), ``build`` must be a module-level function, or a name.
        **options: for the optimizer.

    Returns:
        a DataFrame with columns parametrization, optimizer, width (or depth, or experts), seed, lr,
        step, module, role, quantity and rms. Quantity ``output`` is the root mean square of a
        module's output, ``delta`` that of its change since step 0, ``update`` that of the part of
        the change which the module's own weights made (the last step only; of a linear layer over
        about 256 rows of the batch). The role is that of
        its weight.

    Raises:
        ValueError: fewer than two scales, more than one kind of them, or a build that cannot be
            pickled with workers > 1.
        TypeError: no batch was given.

    >>> net = lambda w: nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 3))
    >>> data = torch.randn(8, 4), torch.arange(8) % 3
    >>> df = coord_check(net, data, widths=[8, 16], seeds=1, steps=1)
    >>> sorted(set(df.quantity))
    ['delta', 'output', 'update']
    """
    if isinstance(build, str | Task):
        task: Task | str = build
    elif batch is None:
        raise TypeError("batch is missing: what should the model be trained on for a few steps?")
    else:
        task = Task(build, _Constant(batch), loss, roles or {}, branches)
    jobs = make_jobs(
        task,
        widths=widths,
        depths=depths,
        experts=experts,
        base_width=base_width,
        parametrization=parametrization,
        optimizer=optimizer,
        lr=lr,
        steps=steps,
        seeds=seeds,
        config=config,
        options=options,
        shares=workers,
    )
    return table(jobs[0].axis, itertools.chain.from_iterable(_map(jobs, workers)))


@dataclass(frozen=True)
class _Constant:
    """A picklable ``step -> batch`` that always gives the same batch."""

    batch: Any

    def __call__(self, step: int) -> Any:
        return self.batch


def _map(jobs: list[Job], workers: int) -> Iterator[Rows]:
    if workers <= 1:
        yield from map(measure, jobs)
        return
    # Forked workers, as in torch's data loader, need no second import and take any factory.
    fork = "fork" in get_all_start_methods() and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if not fork:
        _require_pickle(jobs[0], workers)
    context = get_context("fork" if fork else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(jobs,)) as pool:
        yield from pool.map(_measure_number, range(len(jobs)))


def _require_pickle(job: Job, workers: int) -> None:
    try:
        pickle.dumps(job)
    except Exception as error:
        raise ValueError(
            f"workers={workers} sends the model's factory to other processes, and it cannot be "
            f"pickled ({error}): define it at the top of a module, name it as 'file.py:task', or "
            "use workers=1"
        ) from error


_JOBS: list[Job] = []  # of a worker process


def _begin(jobs: list[Job]) -> None:
    torch.set_num_threads(1)
    _JOBS[:] = jobs


def _measure_number(number: int) -> Rows:
    return measure(_JOBS[number])


def measure(job: Job) -> Rows:
    """All rows of one scale and seed."""
    task = task_of(job)
    torch.manual_seed(job.seed)
    base_sizes: dict[str, int] = {}
    if job.axis == "width":
        model, base_width = task.build(job.scale), job.base
    else:
        model = task.build(job.width, **{job.axis: job.scale})
        # A scheme without a rule for the axis has no base of another size.
        scaled = job.axis in find_parametrization(job.parametrization).scales
        smaller = job.base if scaled else job.scale
        base_sizes, base_width = {job.axis: smaller}, job.width
    plan = task.parametrize_(model, job.parametrization, base_width=base_width, **base_sizes)
    shown = None if job.axis == "width" else _shown(model, task, job)
    units = _branch_units(model, plan)
    _without_dropout(model)
    batch = task.batch(0)
    rows: Rows = []
    start = copy.deepcopy(model.state_dict())
    roles = _module_roles(plan)

    def add(lr: float, step: int, quantity: str, sizes: Mapping[str, float]) -> None:
        head = (plan.parametrization.name, job.optimizer, job.scale, job.seed, lr, step)
        for call, size in sizes.items():
            module, again, number = call.partition("#")
            name = module if shown is None else shown.get(module)
            if name is not None:
                size /= units.get(module, 1.0)
                label = f"{name}{again}{number}"
                rows.append((*head, label, roles.get(module, ""), quantity, size))

    with recording(model) as first:
        torch.autograd.backward(task.loss(model, batch))
    first_outputs = first.outputs
    first_sizes = {m: rms(out) for m, out in first_outputs.items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for lr in job.lrs:
        model.load_state_dict(start)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizers = make_optimizers(plan, model, job.optimizer, lr=lr, **job.options)
        measuring = [o for o in optimizers if isinstance(o, Measuring)]
        if measuring:  # in forward passes, and the first one is past
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(task.loss(model, batch))
        add(lr, 0, "output", first_sizes)
        for step in range(1, job.steps + 1):
            for optimizer in optimizers:
                optimizer.step()
            last = step == job.steps
            with torch.set_grad_enabled(not last), recording(model, start if last else None) as now:
                value = task.loss(model, batch)
            if not last:
                model.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
            add(lr, step, "output", {m: rms(out) for m, out in now.outputs.items()})
            delta = {
                m: rms(out - first_outputs[m])
                for m, out in now.outputs.items()
                if m in first_outputs and out.shape == first_outputs[m].shape
            }
            add(lr, step, "delta", delta)
            add(lr, step, "update", now.updates)
        for optimizer in measuring:
            optimizer.close()
    return rows


def task_of(job: Job) -> Task:
    """The task of a job, made if it is given by name."""
    if isinstance(job.task, Task):
        return job.task
    from paramz.sweeps.spec.target import load_target

    made = load_target(job.task)(dict(job.config), None)
    if not isinstance(made, Task):
        raise TypeError(f"{job.task} returned {type(made).__name__}, where a paramz.Task was due")
    return made


def _shown(model: nn.Module, task: Task, job: Job) -> dict[str, str]:
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
    numbered = {twin for twin in last if twin.rpartition(".")[2].isdigit()}
    return {(last if twin in numbered else first)[twin]: twin for twin in last}


def _branch_units(model: nn.Module, plan: Plan) -> dict[str, float]:
    """Modules whose output is that of a residual branch -> the branch factor in it."""
    blocks = {row.block for row in plan.rows if row.block is not None}
    ends = {
        row.name.rpartition(".")[0]: plan.rulebook.branch_factor(row)
        for row in plan.rows
        if row.ends
    } | dict(plan.branches)
    units = {}
    for path, factor in ends.items():
        while path not in blocks and path:
            units[path] = factor
            path = path.rpartition(".")[0]
    return units


def _without_dropout(model: nn.Module) -> None:
    """Train mode, but for dropout: its noise would be taken for change."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()


def _module_roles(plan: Plan) -> dict[str, str]:
    """Module path -> role of its main tensor; a tied readout is an output."""
    roles: dict[str, str] = {}
    for row in plan.rows:
        roles.setdefault(row.name.rpartition(".")[0], row.role)
    for row in plan.rows:
        roles.update(dict.fromkeys(row.readouts, "output"))
    return roles
