"""The optimizers of a check: by name, by class, or made by a function of the user."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paramz.anatomy.paths import split
from paramz.anatomy.tensors import listed
from paramz.check.jobs import Check, CheckJob, MakesOptimizers, optimizer_name
from paramz.check.values import rms
from paramz.optim.make import MAKERS, SHARED, make_optimizers
from paramz.plan.groups import HIDDEN_ROLES, Group
from paramz.plan.plan import Plan
from paramz.theory.families import Family
from paramz.theory.families import family as find_family
from paramz.theory.rules import ROLES


def require_optimizer(check: Check) -> None:
    """Refuse, before anything runs, what an optimizer that is made by a function cannot take.

    Raises:
        TypeError: options beside a function, or something that is neither name, class nor function.
        ValueError: several learning rates for a function that takes none.
    """
    optimizer, lrs = check.optimizer, check.lrs
    if isinstance(optimizer, str | type):
        return
    if isinstance(optimizer, Family):
        raise TypeError(
            f"optimizer=Family({optimizer.name!r}, ...): a family says what an optimizer does to a "
            "gradient, and not how to make one. Give a function that makes yours: optimizer=lambda "
            "plan, model, lr: YourOptimizer(plan.param_groups(model, family, lr=lr))"
        )
    if not callable(optimizer):
        raise TypeError(
            f"optimizer={optimizer!r}: give a name such as 'adamw', a class such as "
            "torch.optim.AdamW, or a function (plan, model) -> optimizer"
        )
    if isinstance(optimizer, functools.partial) and isinstance(optimizer.func, type):
        given = "".join(f", {option}={value!r}" for option, value in optimizer.keywords.items())
        raise TypeError(
            f"optimizer={optimizer!r}: give the class, and its options to the check: "
            f"optimizer={optimizer.func.__name__}{given}"
        )
    name = optimizer_name(optimizer)
    if not _is_called_right(optimizer):
        raise TypeError(
            f"optimizer={optimizer!r} cannot be called as {name}(plan, model): give a class, as "
            "torch.optim.AdamW, or a function (plan, model, lr) that returns an optimizer made of "
            "plan.param_groups(model, ..., lr=lr)"
        )
    if check.options:
        raise TypeError(
            f"{', '.join(check.options)}: options are for optimizers that paramz makes; set them "
            f"in {name}, the function that makes yours"
        )
    if len(lrs) > 1 and not _takes_lr(optimizer):
        raise ValueError(
            f"lr={list(lrs)}: {name}(plan, model) sets its own learning rate, so several would be "
            "measured alike; let it take one: (plan, model, lr)"
        )


def optimizers_for(
    plan: Plan, model: nn.Module, job: CheckJob, lr: float
) -> list[torch.optim.Optimizer]:
    """What trains the model of a job at a base learning rate.

    Raises:
        ValueError: paramz does not know the optimizer, or a function's holds nothing of the model.
        TypeError: an option that the optimizer lacks, or a function returned no optimizers.

    Warns:
        UserWarning: a function's optimizers leave tensors out; or one is torch's RAdam.
    """
    asked = job.optimizer
    if isinstance(asked, str):
        optimizers = make_optimizers(plan, model, asked, lr=lr, **job.options)
    elif isinstance(asked, type):
        optimizers = _of_class(plan, model, asked, lr, job.options)
    else:
        optimizers = _of_function(plan, model, asked, lr)
    if any(isinstance(each, torch.optim.RAdam) for each in optimizers):
        warnings.warn(
            "RAdam's first five steps are plain momentum at Adam's learning rates, and the check "
            "judges these, so a right plan fails: check 'adam', whose rules it has from the sixth "
            "step on",
            stacklevel=2,
        )
    return optimizers


def _of_function(
    plan: Plan, model: nn.Module, asked: MakesOptimizers, lr: float
) -> list[torch.optim.Optimizer]:
    made: Any = asked(plan, model, lr=lr) if _takes_lr(asked) else asked(plan, model)
    optimizers = list(made) if isinstance(made, Sequence) else [made]
    for each in optimizers:
        if not isinstance(each, torch.optim.Optimizer):
            raise TypeError(
                f"{optimizer_name(asked)}(plan, model) returned {type(each).__name__}, but has to "
                "return an optimizer or several, made of plan.param_groups(model, ...)"
            )
    held = {id(p) for each in optimizers for g in each.param_groups for p in g["params"]}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    out = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    said = f"the optimizers of {optimizer_name(asked)}(plan, model) do not hold {listed(out)}"
    if out == trained:
        raise ValueError(
            f"{said}, and no tensor else of the model that is checked: make them of its own "
            "parameters, plan.param_groups(model, ...)"
        )
    if out:
        warnings.warn(f"{said}, so the check is of a model that does not train them", stacklevel=3)
    return optimizers


def steps_taken(
    model: nn.Module,
    start: Mapping[str, torch.Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> dict[str, float]:
    """How far the first step moved the weights, in units of the learning rate, by module.

    Optimizers that divide by the size of gradients move them by 1, unless epsilon is larger than
    the gradients. Entries without a gradient are left out, and so are optimizers without epsilon.

    Args:
        model: the model after its first update.
        start: its state_dict before.
        optimizers: what made the update.
    """
    rates = {
        id(p): float(group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        if group.get("eps") is not None
        for p in group["params"]
    }
    found: dict[str, float] = {}
    for name, p in model.named_parameters():
        module = split(name)[0]
        rate = rates.get(id(p), 0.0)
        if module in found or rate <= 0 or p.grad is None or p.is_complex():
            continue
        if number := int(torch.count_nonzero(p.grad)):
            moved = p.detach() - start[name]
            if number < moved.numel():  # a third of the time of taking them by the mask
                moved.mul_(p.grad != 0)
            found[module] = rms(moved) * math.sqrt(moved.numel() / number) / rate
    return found


def _of_class(
    plan: Plan, model: nn.Module, kind: type, lr: float, options: Mapping[str, Any]
) -> list[torch.optim.Optimizer]:
    """By its name if paramz makes that very class, else with the groups of its family.

    Of a library's class it is that class that is made: its steps may be others than those of
    torch's of the same name.
    """
    name = optimizer_name(kind)
    if name in MAKERS and _is_made_here(name, kind):
        return make_optimizers(plan, model, name, lr=lr, **options)
    try:
        family = find_family(kind)
    except ValueError as error:
        raise ValueError(
            f"{error} In a check, do that in a function (plan, model, lr) -> optimizer and give it "
            "as optimizer="
        ) from None
    usual = "hidden" if family.shape_factor else "all"
    takes = MAKERS[family.name].takes if family.name in MAKERS else usual
    rest: list[Group] = []
    if takes == "all":
        groups = plan.param_groups(model, kind, lr=lr, **options)
    else:
        groups, rest = plan.split_groups(
            model,
            roles=ROLES if takes == "matrices" else HIDDEN_ROLES,
            first={"optimizer": kind, "lr": lr, **options},
            adamw={"lr": lr, **{key: options[key] for key in SHARED if key in options}},
        )
    made = [kind(groups), *([torch.optim.AdamW(rest)] if rest else [])]
    plan.check(*made, model=model)
    return made


def _is_made_here(name: str, kind: type) -> bool:
    """Whether `make_optimizers` makes this class, and not another one of its name."""
    own = ("pytorch_optimizer.",) if name == "soap" else ("torch.optim.", "paramz.")
    return kind.__module__.startswith(own)


def _is_called_right(function: MakesOptimizers) -> bool:
    """Whether a function can be called with a plan and a model, and lr if it has one."""
    named = {"lr": 1.0} if _takes_lr(function) else {}
    try:
        inspect.signature(function).bind(None, None, **named)
    except TypeError:
        return False
    return True


def _takes_lr(function: MakesOptimizers) -> bool:
    return "lr" in inspect.signature(function).parameters
