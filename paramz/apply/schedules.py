"""Learning-rate schedules: do the ratios between the plan's groups survive them?

A schedule that multiplies each group's own learning rate keeps the ratios. One that sets an
absolute number (OneCycleLR's max_lr, CosineAnnealingLR's eta_min, ReduceLROnPlateau's min_lr) makes
all groups alike, and with that muP is SP again.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch

# What to do instead, by the class of the scheduler.
_FIXES: Mapping[str, str] = {
    "OneCycleLR": "pass max_lr=[g['lr'] for g in groups]",
    "CyclicLR": "pass base_lr and max_lr as lists with one number per group",
    "CosineAnnealingLR": "use eta_min=0, or LambdaLR with a cosine that ends above 0",
    "CosineAnnealingWarmRestarts": "use eta_min=0, or LambdaLR",
    "ReduceLROnPlateau": "pass min_lr as a list, [ratio * g['lr'] for g in groups]",
}
_OTHERWISE = "use LambdaLR, whose function multiplies every group's own learning rate"


def check_schedule(
    scheduler: Any, groups: Iterable[Mapping[str, Any]], *, steps: int = 1000
) -> None:
    """Warn if a schedule breaks the ratios between the learning rates of a plan's groups.

    A copy of the scheduler is run; optimizer and scheduler stay as they are.

    Args:
        scheduler: any torch scheduler, or one of transformers, around the optimizer.
        groups: the groups afresh from ``plan.param_groups`` (those in the optimizer hold what the
            scheduler has made of them by now).
        steps: how far to run it; a schedule that ends earlier is run to its end.

    Raises:
        ValueError: the optimizer has a tensor that is in none of the groups.

    >>> import paramz
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> groups = lambda: plan.param_groups(model, "adamw", lr=0.1)
    >>> optimizer = torch.optim.AdamW(groups())
    >>> check_schedule(torch.optim.lr_scheduler.LinearLR(optimizer), groups())
    """
    planned = {id(p): float(g["lr"]) for g in groups for p in g["params"]}
    running, optimizer = _copied(scheduler)
    wanted = []
    for group in optimizer.param_groups:
        tensor = group["params"][0]
        if id(tensor) not in planned:
            raise ValueError(
                f"a tensor {tuple(tensor.shape)} of the optimizer is in none of the groups: give "
                "those of the plan and optimizer that the scheduler belongs to"
            )
        wanted.append(planned[id(tensor)])
    for step in range(steps + 1):
        found = [float(group["lr"]) for group in optimizer.param_groups]
        scales = [lr / want for lr, want in zip(found, wanted, strict=True) if want > 0]
        if max(scales) > (1 + 1e-6) * min(scales):
            name = type(scheduler).__name__
            warnings.warn(
                f"{name} breaks the ratios between the plan's groups at step {step}: it sets lr "
                f"{_shown(found)} where the plan's ratios ask for {_shown(wanted)} times one "
                f"factor. For this scheduler: {_FIXES.get(name, _OTHERWISE)}.",
                stacklevel=2,
            )
            return
        try:
            _step(running)
        except ValueError:
            return  # OneCycleLR, at its end


def _copied(scheduler: Any) -> tuple[Any, torch.optim.Optimizer]:
    """A copy of the scheduler on a copy of the optimizer's groups; tensors and state are shared."""
    optimizer = scheduler.optimizer
    shared = [p for group in optimizer.param_groups for p in group["params"]]
    memo: dict[int, Any] = {id(each): each for each in (*shared, optimizer.state)}
    running = copy.deepcopy(scheduler, memo)
    return running, running.optimizer


def _step(scheduler: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer step went before
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()


def _shown(lrs: list[float]) -> str:
    return "[" + ", ".join(f"{lr:.3g}" for lr in lrs) + "]"
