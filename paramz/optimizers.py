"""Make the optimizers that a plan's groups are for, by name."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from paramz.groups import Group
from paramz.plan import Plan

# Options that torch wants in the constructor, not in groups.
_FUSED = ("adam", "adamw", "sgd")

# Optimizers that paramz brings: these options are the optimizer's, all others go to the groups.
_KFAC = ("likelihood", "fisher", "sharing", "damping_kind", "factor_decay", "seed")
_KFAC += ("covariance_every", "inverse_every")
_OURS = ("kfac", "foof")


@runtime_checkable
class Measuring(Protocol):
    """An optimizer that measures in forward passes of its model, until it is closed."""

    def close(self) -> None:
        """Remove its hooks from the model."""


def make_optimizers(
    plan: Plan,
    model: nn.Module,
    optimizer: str,
    *,
    lr: float,
    adamw: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[torch.optim.Optimizer]:
    """The optimizers for a model under a plan; Muon brings an AdamW for all but matrices.

    Args:
        plan: the model's plan.
        model: the model.
        optimizer: the name of a torch optimizer, any case: ``"adamw"``, ``"sgd"``, ``"muon"``, ...
            or of one that paramz brings: ``"kfac"``, ``"foof"``.
        lr: learning rate at the base. With Muon, AdamW has the same one, which suits Muon with
            ``adjust_lr_fn="match_rms_adamw"``, if ``adamw`` names no other.
        adamw: settings of an AdamW for all but hidden matrices, such as ``dict(lr=3e-3)``. Without
            it K-FAC and FOOF take all tensors.
        **options: such as weight_decay, betas, momentum, damping.

    Raises:
        ValueError: torch.optim has no such optimizer, or the plan has no rules for it.

    >>> import paramz
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Linear(w, w), nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> [type(o).__name__ for o in make_optimizers(plan, model, "muon", lr=0.01)]
    ['Muon', 'AdamW']
    >>> [type(o).__name__ for o in make_optimizers(plan, model, "kfac", lr=0.1)]
    ['KFAC']
    """
    name = optimizer.lower()
    by_name = {n.lower(): c for n, c in vars(torch.optim).items() if isinstance(c, type)}
    if name not in (*by_name, "kfac", "foof"):
        known = ", ".join([*sorted(by_name), "kfac", "foof"])
        raise ValueError(f"torch.optim has no {optimizer!r}; it has {known}")
    own = {key: options.pop(key) for key in _KFAC if key in options} if name in _OURS else {}
    rest: list[Group] = []
    if name == "muon" or adamw is not None:
        decay = {k: v for k, v in options.items() if k in ("weight_decay", "decay")}
        groups, rest = plan.split_groups(
            model, **{name: {"lr": lr, **options}}, adamw={"lr": lr, **decay, **(adamw or {})}
        )
    else:
        groups = plan.param_groups(model, name, lr=lr, **options)
    others = [torch.optim.AdamW(rest)] if rest else []
    if name in _OURS:
        from paramz.optim import KFAC

        factors = "inputs" if name == "foof" else "both"
        return [KFAC(groups, model, factors=factors, **own), *others]
    fused = {"fused": True} if name in _FUSED and _can_fuse(model) else {}
    return [by_name[name](groups, **fused), *others]


def _can_fuse(model: nn.Module) -> bool:
    return all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters()
    )
