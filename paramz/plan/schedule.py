"""Does a schedule keep the ratios between the learning rates of a plan's groups?

A schedule that multiplies each group's own learning rate does. One that sets an absolute number
(OneCycleLR's max_lr, CosineAnnealingLR's eta_min, timm's lr_min) makes all groups alike, and with
that muP is SP again.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from paramz.plan.groups import PLANNED_LR

# What to do instead, by the class of the scheduler.
_FIXES: Mapping[str, str] = {
    "OneCycleLR": "pass max_lr=[g['lr'] for g in groups]",
    "CyclicLR": "pass base_lr and max_lr as lists with one number per group",
    "CosineAnnealingLR": "use eta_min=0, or LambdaLR with a cosine that ends above 0",
    "CosineAnnealingWarmRestarts": "use eta_min=0, or LambdaLR",
    "ReduceLROnPlateau": "pass min_lr as a list, [ratio * g['lr'] for g in groups]",
    "CosineLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "TanhLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "PolyLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "StepLRScheduler": "use warmup_lr_init=0",
    "MultiStepLRScheduler": "use warmup_lr_init=0",
    "PlateauLRScheduler": "use lr_min=0 and warmup_lr_init=0",
}
_OTHERWISE = "use LambdaLR, whose function multiplies every group's own learning rate"
# What `step` is given where it asks for a figure of merit; anything else it asks for is the time.
_MERITS = ("metric", "metrics", "loss", "val_loss", "score")


def broken_ratios(
    scheduler: Any, planned: Mapping[int, float] | None = None, steps: int = 1000
) -> str | None:
    """A sentence on the first step at which a schedule breaks the ratios; None if it keeps them.

    A copy of the scheduler is run; optimizer and scheduler stay as they are.

    Args:
        scheduler: of torch, transformers, Accelerate, timm, or any with an ``optimizer`` and a
            ``step`` that takes nothing, a time (0, 1, 2 ...) or a figure of merit.
        planned: by the id of a tensor its lr under the plan; None for what the groups say.
        steps: how far to run it; a schedule that ends earlier is run to its end.

    Raises:
        TypeError: the scheduler names no optimizer.
        ValueError: the optimizer has a tensor that is not planned.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)  # Accelerate's holds the real one
    running, optimizer = _copied(scheduler)
    wanted = [_planned_lr(group, planned) for group in optimizer.param_groups]
    for step in range(steps + 1):
        found = [float(group["lr"]) for group in optimizer.param_groups]
        scales = [lr / want for lr, want in zip(found, wanted, strict=True) if want > 0]
        if scales and max(scales) > (1 + 1e-6) * min(scales):
            name = type(scheduler).__name__
            return (
                f"{name} breaks the ratios between the plan's groups at step {step}: it sets lr "
                f"{_shown(found)} where the plan's ratios ask for {_shown(wanted)} times one "
                f"factor. For this scheduler: {_FIXES.get(name, _OTHERWISE)}."
            )
        try:
            _step(running, step)
        except ValueError:
            break  # OneCycleLR, at its end
    # One of several that come after each other may begin later than this ran.
    parts = getattr(scheduler, "_schedulers", ())
    return next((said for part in parts if (said := broken_ratios(part, planned, steps))), None)


def _planned_lr(group: Mapping[str, Any], planned: Mapping[int, float] | None) -> float:
    if planned is None:
        if PLANNED_LR in group:
            return float(group[PLANNED_LR])
        raise ValueError(
            "the scheduler's optimizer has a group that no plan made: give it those of "
            "plan.param_groups"
        )
    tensor = group["params"][0]
    if id(tensor) not in planned:
        raise ValueError(
            f"a tensor {tuple(tensor.shape)} of the optimizer is in none of the groups: give "
            "those of the plan and optimizer that the scheduler belongs to"
        )
    return planned[id(tensor)]


def _copied(scheduler: Any) -> tuple[Any, Any]:
    """A copy of the scheduler on a copy of the optimizer's groups; tensors and state are shared."""
    optimizer = getattr(scheduler, "optimizer", None)
    if optimizer is None:
        raise TypeError(
            f"{type(scheduler).__name__} has no attribute 'optimizer', so paramz cannot see which "
            "learning rates it sets: give the scheduler inside it"
        )
    shared = [p for group in optimizer.param_groups for p in group["params"]]
    memo: dict[int, Any] = {id(each): each for each in (*shared, optimizer.state)}
    running = copy.deepcopy(scheduler, memo)
    return running, running.optimizer


def _step(scheduler: Any, time: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer step went before
        _called(scheduler.step, time)
        if hasattr(scheduler, "step_update"):  # timm's, which count updates beside epochs
            _called(scheduler.step_update, time)


def _called(step: Any, time: int) -> None:
    """Call a ``step`` with what it cannot do without."""
    needed = [
        p.name
        for p in inspect.signature(step).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    step(**{name: 1.0 if name in _MERITS else time for name in needed})


def _shown(lrs: list[float]) -> str:
    return "[" + ", ".join(f"{lr:.3g}" for lr in lrs) + "]"
