"""Coordinate check: train models of several widths for a few steps and measure activations.

Under a parametrization that transfers, every activation's change is as large at one width as at
another (Yang et al. 2022, TP-V, appendix D.1). The judgement is in `paramz.judge`.

The first forward and backward pass do not depend on the learning rate, so they are shared between
learning rates, and the last step needs no backward pass.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from paramz.apply import parametrize_
from paramz.optimizers import make_optimizers
from paramz.plan import Plan
from paramz.roles import Overrides
from paramz.rules import Parametrization
from paramz.task import Task, default_loss

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "parametrization",
    "optimizer",
    "width",
    "seed",
    "lr",
    "step",
    "module",
    "role",
    "quantity",
    "rms",
)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One model of the check: everything a worker process needs, picklable."""

    task: Task | str
    config: Mapping[str, Any]
    parametrization: str | Parametrization
    optimizer: str
    options: Mapping[str, Any]
    lrs: tuple[float, ...]
    steps: int
    base_width: int
    width: int
    seed: int


def coord_check(
    build: Callable[[int], nn.Module] | Task | str,
    batch: Any = None,
    *,
    loss: Callable[[nn.Module, Any], torch.Tensor] = default_loss,
    widths: Sequence[int] = (64, 128, 256, 512),
    base_width: int | None = None,
    parametrization: str | Parametrization = "mup",
    optimizer: str = "adamw",
    lr: float | Sequence[float] = 2**-8,
    steps: int = 3,
    seeds: int | Sequence[int] = 3,
    roles: Overrides | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """Measure the size of every module's output, and of its change, over widths and steps.

    Args:
        build: ``width -> model``; or a `Task`; or the name of a function that returns one, such as
            ``"sweeps/train_lm.py:task"``.
        batch: the batch trained on at every step (needed with a plain ``build``).
        loss: ``(model, batch) -> scalar``; the default knows pairs and Hugging Face mappings.
        widths: model widths; four or more over a ratio of 8 make a useful slope.
        base_width: the base of the parametrization; the smallest width if left out.
        parametrization: name or table.
        optimizer: name of a torch optimizer; ``"muon"`` takes AdamW for all but hidden matrices.
        lr: base learning rate, or several.
        steps: updates, so that there are steps 0 ... ``steps``.
        seeds: number of seeds, or the seeds.
        roles: overrides, as for `parametrize_`.
        config: passed to the task function when ``build`` is its name.
        workers: processes with one thread each. More than one needs a ``build`` that can be
            pickled (a module-level function, or a name).
        **options: for the optimizer.

    Returns:
        a DataFrame with columns parametrization, optimizer, width, seed, lr, step, module, role,
        quantity and rms. Quantity ``output`` is the root mean square of a module's output,
        ``delta`` that of its change since step 0, ``update`` that of the part of the change which
        the module's own weights made (the last step only). The role is that of its weight.

    Raises:
        ValueError: fewer than two widths, or a build that cannot be pickled with workers > 1.
        TypeError: no batch was given.

    >>> net = lambda w: nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 3))
    >>> data = torch.randn(8, 4), torch.arange(8) % 3
    >>> df = coord_check(net, data, widths=[8, 16], seeds=1, steps=1)
    >>> sorted(set(df.quantity))
    ['delta', 'output', 'update']
    """
    import pandas as pd

    if len(set(widths)) < 2:
        raise ValueError(f"widths={list(widths)}: a slope needs at least two different widths")
    if isinstance(build, str | Task):
        task: Task | str = build
    elif batch is None:
        raise TypeError("batch is missing: what should the model be trained on for a few steps?")
    else:
        task = Task(build, _Constant(batch), loss, roles or {})
    jobs = [
        _Job(
            task=task,
            config=dict(config or {}),
            parametrization=parametrization,
            optimizer=optimizer,
            options=options,
            lrs=(lr,) if isinstance(lr, float | int) else tuple(lr),
            steps=steps,
            base_width=min(widths) if base_width is None else base_width,
            width=width,
            seed=seed,
        )
        # The widest model takes longest, so it goes first.
        for width, seed in itertools.product(
            sorted(set(widths), reverse=True), range(seeds) if isinstance(seeds, int) else seeds
        )
    ]
    rows = list(itertools.chain.from_iterable(_map(jobs, workers)))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    order = frame.groupby(["width", "seed", "lr", "step", "quantity"], sort=False).cumcount()
    frame = frame.assign(_order=order).sort_values(
        ["width", "seed", "lr", "step", "quantity", "_order"], kind="stable"
    )
    return frame.drop(columns="_order").reset_index(drop=True)


@dataclass(frozen=True)
class _Constant:
    """A picklable ``step -> batch`` that always gives the same batch."""

    batch: Any

    def __call__(self, step: int) -> Any:
        return self.batch


def _map(jobs: list[_Job], workers: int) -> Iterator[list[tuple[Any, ...]]]:
    if workers <= 1:
        yield from map(_measure, jobs)
        return
    try:
        pickle.dumps(jobs[0])
    except Exception as error:
        raise ValueError(
            f"workers={workers} sends the model's factory to other processes, and it cannot be "
            f"pickled ({error}): define it at the top of a module, name it as 'file.py:task', or "
            "use workers=1"
        ) from error
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(_measure, jobs)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _measure(job: _Job) -> list[tuple[Any, ...]]:
    """All rows of one width and seed."""
    task = _task(job)
    torch.manual_seed(job.seed)
    model = task.build(job.width)
    plan = parametrize_(
        model,
        job.parametrization,
        base=task.build,
        base_width=job.base_width,
        roles=task.roles,
    )
    _without_dropout(model)
    batch = task.batch(0)
    rows: list[tuple[Any, ...]] = []
    start = copy.deepcopy(model.state_dict())
    roles = _module_roles(plan)

    def add(lr: float, step: int, quantity: str, sizes: Mapping[str, float]) -> None:
        head = (plan.parametrization.name, job.optimizer, job.width, job.seed, lr, step)
        rows.extend((*head, m, roles.get(m, ""), quantity, rms) for m, rms in sizes.items())

    with recording(model) as first:
        torch.autograd.backward(task.loss(model, batch))
    first_outputs = first.outputs
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for lr in job.lrs:
        model.load_state_dict(start)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizers = make_optimizers(plan, model, job.optimizer, lr=lr, **job.options)
        add(lr, 0, "output", {m: _rms(out) for m, out in first_outputs.items()})
        for step in range(1, job.steps + 1):
            for optimizer in optimizers:
                optimizer.step()
            last = step == job.steps
            with torch.set_grad_enabled(not last), recording(model, start if last else None) as now:
                value = task.loss(model, batch)
            if not last:
                model.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
            add(lr, step, "output", {m: _rms(out) for m, out in now.outputs.items()})
            delta = {
                m: _rms(out - first_outputs[m])
                for m, out in now.outputs.items()
                if m in first_outputs and out.shape == first_outputs[m].shape
            }
            add(lr, step, "delta", delta)
            add(lr, step, "update", now.updates)
    return rows


def _task(job: _Job) -> Task:
    if isinstance(job.task, Task):
        return job.task
    from paramz.sweeps.target import load_target

    made = load_target(job.task)(dict(job.config), None)
    if not isinstance(made, Task):
        raise TypeError(f"{job.task} returned {type(made).__name__}, where a paramz.Task was due")
    return made


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


def _rms(values: torch.Tensor) -> float:
    return float(values.detach().float().pow(2).mean().sqrt())


@dataclass
class _Record:
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)


@contextmanager
def recording(
    model: nn.Module, start: Mapping[str, torch.Tensor] | None = None
) -> Iterator[_Record]:
    """Record every module's first output tensor during a forward pass.

    A module called several times is recorded under ``path``, ``path#2``, ... With ``start`` (an
    earlier state_dict), modules with weights of their own are run once more on the same input with
    those weights, and the difference is their own update.
    """
    record = _Record()
    calls: dict[str, int] = {}

    def hook(path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        calls[path] = calls.get(path, 0) + 1
        name = path if calls[path] == 1 else f"{path}#{calls[path]}"
        record.outputs[name] = tensor.detach()
        own = module._parameters
        if start is not None and any(p is not None for p in own.values()):
            old = {n: start[f"{path}.{n}" if path else n] for n, p in own.items() if p is not None}
            before = _first_tensor(_rerun(module, old, args, kwargs))
            if before is not None:
                record.updates[name] = _rms(tensor - before)

    handles = [
        module.register_forward_hook(_at(hook, path), with_kwargs=True)
        for path, module in model.named_modules()
        if path
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _at(hook: Callable[..., None], path: str) -> Callable[..., None]:
    return lambda module, args, kwargs, output: hook(path, module, args, kwargs, output)


def _rerun(module: nn.Module, weights: Mapping[str, torch.Tensor], args: Any, kwargs: Any) -> Any:
    """The module's forward, without its hooks, at other weights."""
    saved = {name: module._parameters[name] for name in weights}
    try:
        for name, weight in weights.items():
            module._parameters[name] = weight  # type: ignore[assignment]
        with torch.no_grad():
            return module.forward(*args, **kwargs)
    finally:
        module._parameters.update(saved)


def _first_tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((x for x in output if isinstance(x, torch.Tensor)), None)
    return None
