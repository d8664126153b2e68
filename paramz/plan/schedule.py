"""Does a schedule keep the ratios between the learning rates of a plan's groups?

A schedule that multiplies each group's own learning rate does. One that sets an absolute number
(OneCycleLR's max_lr, CosineAnnealingLR's eta_min, timm's lr_min) makes all groups alike, and with
that muP is SP again.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from paramz.plan.groups import PLANNED_LR

# What to do instead, by the class of the scheduler.
_FIXES: Mapping[str, str] = {
    "OneCycleLR": "pass max_lr=[g['lr'] for g in groups]",
    "CyclicLR": "pass base_lr and max_lr as lists with one number per group",
    "CosineAnnealingLR": "use eta_min=0, or LambdaLR with a cosine that ends above 0",
    "CosineAnnealingWarmRestarts": "use eta_min=0, or LambdaLR",
    "ReduceLROnPlateau": "pass eps=0, and min_lr as a list, [ratio * g['lr'] for g in groups]",
    "CosineLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "TanhLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "PolyLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "StepLRScheduler": "use warmup_lr_init=0",
    "MultiStepLRScheduler": "use warmup_lr_init=0",
    "PlateauLRScheduler": "use lr_min=0 and warmup_lr_init=0",
    "LambdaLR": "give it one function for all groups",
    "SWALR": "pass swa_lr as a list, [ratio * g['lr'] for g in groups]",
    "WarmupLR": "pass warmup_min_lr=0 and warmup_max_lr=[g['lr'] for g in groups]",
    "WarmupDecayLR": "pass warmup_min_lr=0 and warmup_max_lr=[g['lr'] for g in groups]",
}
_OTHERWISE = "use LambdaLR, whose function multiplies every group's own learning rate"
# What `step` is given where it asks for a figure of merit; anything else it asks for is the time.
_MERITS = ("metric", "metrics", "loss", "val_loss", "score")
# By which torch's schedules can be told the time, too.
_EPOCH = "epoch"
# Times at which a schedule is looked at after it was run, where it can be asked for any: floors on
# learning rates show late in long schedules.
_STEPS = 1000
_LATER = tuple(round(_STEPS * 1.5**k) for k in range(1, 26))
# A share of the plan's rates that is none: below it numbers lose their digits.
_NOTHING = 1e-100


def broken_ratios(
    scheduler: Any, planned: Mapping[int, float] | None = None, steps: int | None = None
) -> str | None:
    """A sentence on the first step at which a schedule breaks the ratios; None if it keeps them.

    A copy of the scheduler is run; optimizer and scheduler stay as they are.

    Args:
        scheduler: of torch, transformers, Accelerate, timm, or any with an ``optimizer`` and a
            ``step`` that takes nothing, a time (0, 1, 2 ...) or a figure of merit.
        planned: by the id of a tensor its lr under the plan; None for what the groups say.
        steps: how far to run it; a schedule that ends earlier is run to its end. None for 1000, and
            for later times where they can be asked for without the steps before.

    Raises:
        TypeError: the scheduler names no optimizer.
        ValueError: the optimizer has a tensor that is not planned.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)  # Accelerate's holds the real one
    running, optimizer = _copied(scheduler)
    wanted = [_planned_lr(group, planned) for group in optimizer.param_groups]
    course = _course(running, optimizer, _STEPS if steps is None else steps, later=steps is None)
    for step, found in course:
        scales = [lr / want for lr, want in zip(found, wanted, strict=True) if want > 0]
        if not scales or min(scales) < 0 or max(scales) < _NOTHING:
            continue
        if max(scales) > (1 + 1e-6) * min(scales):
            name = type(scheduler).__name__
            return (
                f"{name} breaks the ratios between the plan's groups at step {step}: it sets lr "
                f"{_shown(found)} where the plan's ratios ask for {_shown(wanted)} times one "
                f"factor. For this scheduler: {_FIXES.get(name, _OTHERWISE)}."
            )
    # One of several that come after each other may begin later than this ran.
    parts = getattr(scheduler, "_schedulers", ())
    return next((said for part in parts if (said := broken_ratios(part, planned, steps))), None)


def _course(
    running: Any, optimizer: Any, steps: int, *, later: bool
) -> Iterator[tuple[int, list[float]]]:
    """The learning rates of all groups, step by step, and then at the later times that it tells."""
    for step in range(steps + 1):
        yield step, [float(group["lr"]) for group in optimizer.param_groups]
        try:
            _step(running, step)
        except Exception:
            if step == 0:
                raise
            return  # its end: OneCycleLR's, or that of a list or an assertion of a user's own
    with suppress(Exception):
        for time in _LATER if later and _is_told_the_time(running.step) else ():
            _step(running, time, jump=True)
            yield time, [float(group["lr"]) for group in optimizer.param_groups]


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


def _step(scheduler: Any, time: int, *, jump: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer step went before, or an epoch is given
        _called(scheduler.step, time, jump)
        if hasattr(scheduler, "step_update"):  # timm's, which count updates beside epochs
            _called(scheduler.step_update, time, jump)


def _called(step: Any, time: int, jump: bool) -> None:
    """Call a ``step`` with what it cannot do without, and with the time if that is not the next."""
    given = {name: 1.0 if name in _MERITS else time for name in _needed(step)}
    step(**given, **({_EPOCH: time} if jump and _EPOCH in _parameters(step).keys() - given else {}))


def _is_told_the_time(step: Any) -> bool:
    """Whether a ``step`` takes the time, as timm's have to and torch's may."""
    return _EPOCH in _parameters(step) or bool({*_needed(step)} - {*_MERITS})


def _needed(step: Any) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = _parameters(step).items()
    return [name for name, p in parameters if p.default is p.empty and p.kind not in kinds]


def _parameters(step: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(step).parameters


def _shown(lrs: list[float]) -> str:
    return "[" + ", ".join(f"{lr:.6g}" for lr in lrs) + "]"
