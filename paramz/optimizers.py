"""Make the optimizers that a plan's groups are for, by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from paramz.plan import Plan

# Options that torch wants in the constructor, not in groups.
_FUSED = ("adam", "adamw", "sgd")


def make_optimizers(
    plan: Plan, model: nn.Module, optimizer: str, *, lr: float, **options: Any
) -> list[torch.optim.Optimizer]:
    """The torch optimizers for a model under a plan; Muon brings an AdamW for all but matrices.

    Args:
        plan: the model's plan.
        model: the model.
        optimizer: the name of a torch optimizer, any case: ``"adamw"``, ``"sgd"``, ``"muon"``, ...
        lr: learning rate at the base. With Muon, AdamW has the same one, which suits Muon with
            ``adjust_lr_fn="match_rms_adamw"``; use `Plan.split_groups` for two of them.
        **options: such as weight_decay, betas, momentum.

    Raises:
        ValueError: torch.optim has no such optimizer, or the plan has no rules for it.

    >>> import paramz
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Linear(w, w), nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> [type(o).__name__ for o in make_optimizers(plan, model, "muon", lr=0.01)]
    ['Muon', 'AdamW']
    """
    name = optimizer.lower()
    by_name = {n.lower(): c for n, c in vars(torch.optim).items() if isinstance(c, type)}
    if name not in by_name:
        raise ValueError(f"torch.optim has no {optimizer!r}; it has {', '.join(sorted(by_name))}")
    if name == "muon":
        decay = {k: v for k, v in options.items() if k in ("weight_decay", "decay")}
        hidden, rest = plan.split_groups(
            model, muon={"lr": lr, **options}, adamw={"lr": lr, **decay}
        )
        return [torch.optim.Muon(hidden), torch.optim.AdamW(rest)]
    groups = plan.param_groups(model, name, lr=lr, **options)
    fused = {"fused": True} if name in _FUSED and _can_fuse(model) else {}
    return [by_name[name](groups, **fused)]


def _can_fuse(model: nn.Module) -> bool:
    return all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters()
    )
