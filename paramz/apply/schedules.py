"""Learning-rate schedules: do the ratios between the plan's groups survive them?"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from paramz.plan.schedule import broken_ratios


def check_schedule(
    scheduler: Any, groups: Iterable[Mapping[str, Any]] | None = None, *, steps: int | None = None
) -> None:
    """Warn if a schedule breaks the ratios between the learning rates of a plan's groups.

    A copy of the scheduler is run; optimizer and scheduler stay as they are. A ``step`` that needs
    an epoch or a number of updates, as timm's do, is given 0, 1, 2 ...

    Args:
        scheduler: any torch scheduler, or one of transformers, Accelerate or timm, around the
            optimizer.
        groups: the groups afresh from ``plan.param_groups``; if left out, what the optimizer's
            groups say of how they were planned.
        steps: how far to run it; a schedule that ends earlier is run to its end. None for 1000, and
            for later times where they can be asked for without the steps before (of torch's
            schedules, and where ``step`` takes the time), as floors show late in long runs.

    Raises:
        TypeError: the scheduler is an optimizer or names none, or groups are none.
        ValueError: the optimizer has a tensor that is in none of the groups.

    >>> import paramz, torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    >>> check_schedule(torch.optim.lr_scheduler.LinearLR(optimizer))
    """
    if hasattr(scheduler, "param_groups"):
        raise TypeError(
            "check_schedule takes the scheduler, and got the optimizer "
            f"{type(scheduler).__name__}: paramz.check_schedule(scheduler). A function of "
            "the step goes into one, as in torch.optim.lr_scheduler.LambdaLR(optimizer, function)"
        )
    planned = None
    if groups is not None:
        if not isinstance(groups, Iterable):
            name = getattr(groups, "__name__", type(groups).__name__)
            raise TypeError(
                f"groups={name} are no groups: leave them out, or give those of "
                "plan.param_groups(model, ...)"
            )
        planned = {id(p): float(g["lr"]) for g in groups for p in g["params"]}
    said = broken_ratios(scheduler, planned, steps)
    if said is not None:
        warnings.warn(said, stacklevel=2)
