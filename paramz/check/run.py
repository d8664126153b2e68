"""Coordinate check: train models of several sizes for a few steps and measure activations.

The sizes differ in width, in depth, in the number of experts, in the rank of adapters or in the
density of masks. Under a parametrization that transfers, every activation's change is as large at
one of them as at another (Yang et al. 2022, TP-V, appendix D.1). `paramz.judge` judges it.
"""

from __future__ import annotations

import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from paramz.anatomy.branches import Branches
from paramz.anatomy.factors import Factors
from paramz.apply.task import Task, default_loss
from paramz.check.batch import concerns
from paramz.check.jobs import Check, CheckJob, MakesOptimizers, Rows, make_jobs, table
from paramz.check.measure import measure
from paramz.check.named import task_of
from paramz.check.optimizers import require_optimizer
from paramz.check.repeated import without_repeats
from paramz.plan.roles import Overrides
from paramz.theory.rules import Parametrization

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
    ranks: Sequence[int] | None = None,
    densities: Sequence[float] | None = None,
    base_width: int | None = None,
    parametrization: str | Parametrization = Check.parametrization,
    optimizer: str | type | MakesOptimizers = Check.optimizer,
    lr: float | Sequence[float] = Check.lr,
    steps: int = Check.steps,
    seeds: int | Sequence[int] = Check.seeds,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    factors: Factors | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Measure the size of every module's output, and of its change, over scales and steps.

    The model's own output is measured as ``(model)`` where no module's output is it, and what goes
    into a module as ``path(input)`` where an operation between modules made it. A module that only
    hands on the output of another has no rows (over depth or experts it has). All forward passes of
    a model draw the same random numbers, so dropped labels or layers and noise stay the same, and
    nn.Dropout is switched off; everything else is as in training.

    Over depths, blocks at the same relative depth are compared, under their names in the shallowest
    model, and modules whose output is that of a residual branch are measured before the branch
    factor. Over experts, the first ones are compared.

    Args:
        build: ``width -> model``, with a keyword ``depth``, ``experts``, ``rank`` or ``density``
            to check over those; or a `Task`; or the name of a function that returns one, such as
            ``"sweeps/train_lm.py:task"``.
        batch: the batch trained on at every step (needed with a plain ``build``). Of more than 256
            targets, rows with about so many are drawn, always the same, as more targets narrow no
            interval; all of it with a loss of your own, and over experts.
        loss: ``(model, batch) -> scalar``; the default knows pairs ``(x, y)``, and mappings for
            models that compute their loss.
        widths: model widths, (64, 128, 256, 512) if nothing else is varied; four or more over a
            ratio of 8 make a useful slope.
        depths: numbers of blocks instead; the smallest is the base.
        experts: numbers of experts instead; the smallest is the base.
        ranks: ranks of adapters instead; the smallest is the base.
        densities: densities of masks instead; the largest is the base.
        base_width: the base of the parametrization, by default the smallest width; over depths,
            experts, ranks or densities the width of all models, by default 64.
        parametrization: name or table.
        optimizer: a name, as for `paramz.make_optimizers`: a torch optimizer's, ``"kfac"``,
            ``"foof"``, ``"shampoo"`` or ``"soap"``. Beside Muon, an AdamW takes all but hidden
            matrices. Or a class, such as ``torch.optim.AdamW``. Or a function ``(plan, model)``
            that returns an optimizer or several; if it takes ``lr``, it is given the base learning
            rate, else it sets its own, and ``lr`` is only what the table says.
        lr: base learning rate, or several.
        steps: updates, so that there are steps 0 ... ``steps``.
        seeds: number of seeds, or the seeds.
        roles: overrides, as for `parametrize_`.
        branches: residual branches, as for `parametrize_`.
        factors: factors in the model's own code, as for `parametrize_`.
        config: passed to the task function when ``build`` is its name.
        workers: processes with one thread each. Where processes cannot be forked (Windows, or
            CUDA in use), ``build`` must be a module-level function, or a name.
        progress: called now and then with the share of the work that is done, about 0 to 1.
        **options: for the optimizer.

    Warns:
        UserWarning: the batch is small, its tokens look random, or trained weights are of half
            precision, so that a right plan may look wrong; or seeds gave the same numbers, as those
            of a model that sets torch's seed itself do, and count once.

    Returns:
        a DataFrame with columns parametrization, optimizer, width (or depth, experts, rank,
        density), seed, lr, step, module, role, quantity, rms and last. Quantity ``output`` is the
        root mean square of a module's output, ``delta`` that of its change since step 0, ``update``
        that of the part of the change which the module's own weights made (the last step only; of
        a linear layer over about 256 rows of the batch), ``reach`` that of scale * |q| * |k| in
        attention.
        Evidence for causes: ``aligned`` (the part of an update that adds up), ``zeroed`` (the
        update in a second run, where maps that start faint start at zero), ``input`` and
        ``expected`` (what goes into a module, and what its weight, drawn at random, would make of
        it) and ``step`` (the first step of its weight, in learning rates). The role is that of its
        weight; ``last`` tells that nothing which grows is applied after it.

    Raises:
        ValueError: fewer than two scales, more than one kind of them, or a build that cannot be
            pickled with workers > 1.
        ValueError: a hook with a factor of the plan did not run, because the forward pass uses the
            weights of a module without calling it.
        TypeError: no batch was given, a model in place of its factory, or an option that neither
            paramz nor the optimizer has.

    >>> net = lambda w: nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 3))
    >>> data = torch.randn(8, 4), torch.arange(8) % 3
    >>> df = coord_check(net, data, widths=[8, 16], seeds=1, steps=1)
    >>> {"output", "delta", "update"} <= set(df.quantity)
    True
    """
    if isinstance(build, str | Task):
        task: Task | str = build
    elif isinstance(build, nn.Module):
        raise TypeError(
            f"build is a model, {type(build).__name__}, and a check trains it at several sizes: "
            "pass a function of the size that returns the model, as in lambda width: Net(width); "
            "for a Hugging Face model, paramz.hf.config_factory(model)"
        )
    elif batch is None:
        raise TypeError("batch is missing: what should the model be trained on for a few steps?")
    else:
        task = Task(build, _Constant(batch), loss, roles or {}, branches, factors)
    check = Check(
        widths=widths,
        depths=depths,
        experts=experts,
        ranks=ranks,
        densities=densities,
        base_width=base_width,
        parametrization=parametrization,
        optimizer=optimizer,
        lr=lr,
        steps=steps,
        seeds=seeds,
        config=config or {},
        options=options,
    )
    require_optimizer(check)
    jobs = make_jobs(task, check, shares=workers)
    for concern in concerns(task_of(jobs[0]).batch(0)):
        warnings.warn(concern, stacklevel=2)
    with _each_said_once():
        rows = _map(jobs, workers, progress or (lambda share: None))
        df, said = without_repeats(table(jobs[0].axis, itertools.chain.from_iterable(rows)))
    if said is not None:
        warnings.warn(said, stacklevel=2)
    return df


@contextmanager
def _each_said_once() -> Iterator[None]:
    """Show a warning once that is the same for the models of all sizes and seeds."""
    told: set[tuple[str, type[Warning]]] = set()
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **to: Any) -> None:
            if (str(message), category) not in told:
                told.add((str(message), category))
                shown(message, category, *where, **to)

        warnings.showwarning = show
        yield


@dataclass(frozen=True)
class _Constant:
    """A picklable ``step -> batch`` that always gives the same batch."""

    batch: Any

    def __call__(self, step: int) -> Any:
        return self.batch


def _map(jobs: list[CheckJob], workers: int, progress: Callable[[float], None]) -> Iterator[Rows]:
    """The rows of each job, in order. What a job costs is guessed from its scale."""
    # Between that of the overhead, which dominates small models, and that of the products.
    costs = [len(job.lrs) * job.scale ** (1.5 if job.axis == "width" else 1.0) for job in jobs]
    done, total = 0.0, sum(costs)
    if workers <= 1:
        for job, cost in zip(jobs, costs, strict=True):
            told = partial(_tell, progress, done / total, cost / total)
            yield measure(job, told)
            done += cost
        return
    # Forked workers, as in torch's data loader, need no second import and take any factory.
    fork = "fork" in get_all_start_methods() and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if not fork:
        _require_pickle(jobs[0], workers)
    context = get_context("fork" if fork else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(jobs,)) as pool:
        for rows, cost in zip(pool.map(_measure_number, range(len(jobs))), costs, strict=True):
            done += cost
            progress(done / total)
            yield rows


def _tell(progress: Callable[[float], None], before: float, of_job: float, share: float) -> None:
    progress(before + of_job * share)


def _require_pickle(job: CheckJob, workers: int) -> None:
    try:
        pickle.dumps(job)
    except Exception as error:
        raise ValueError(
            f"workers={workers} sends the model's factory to other processes, and it cannot be "
            f"pickled ({error}): define it at the top of a module, name it as 'file.py:task', or "
            "use workers=1"
        ) from error


_JOBS: list[CheckJob] = []  # of a worker process


def _begin(jobs: list[CheckJob]) -> None:
    torch.set_num_threads(1)
    _JOBS[:] = jobs


def _measure_number(number: int) -> Rows:
    return measure(_JOBS[number])
