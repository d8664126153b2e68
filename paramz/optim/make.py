"""Make the optimizers that a plan's groups are for, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from paramz.plan.groups import Group, split_groups
from paramz.plan.plan import Plan
from paramz.theory.rules import ROLES

# Options that torch wants in the constructor, not in groups.
_FUSED = ("adam", "adamw", "sgd")

# Optimizers that paramz brings: these options are the optimizer's, all others go to the groups.
_KFAC = (
    "likelihood", "fisher", "sharing", "damping_kind", "factor_decay",
    "covariance_every", "inverse_every", "block_size", "seed",
)  # fmt: skip
# Those with rules for matrices of any role, and for nothing else.
_MATRICES = ("shampoo", "soap")
_OURS = ("kfac", "foof", *_MATRICES)


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
    rest_lr: float | None = None,
    adamw: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[torch.optim.Optimizer]:
    """The optimizers for a model under a plan, some with an AdamW for what they leave.

    Args:
        plan: the model's plan.
        model: the model.
        optimizer: the name of a torch optimizer, any case: ``"adamw"``, ``"sgd"``, ``"muon"``, ...
            or of one that paramz brings: ``"kfac"``, ``"foof"``, ``"shampoo"``; or ``"soap"``,
            pytorch_optimizer's.
        lr: learning rate at the base.
        rest_lr: that of the AdamW beside Muon (which takes hidden matrices), Shampoo and SOAP (all
            matrices); ``lr`` if left out, which suits SOAP, and Muon with
            ``adjust_lr_fn="match_rms_adamw"``.
        adamw: settings of an AdamW for all but hidden matrices, such as ``dict(lr=3e-3)``. Without
            it K-FAC and FOOF take all tensors, Shampoo and SOAP all matrices.
        **options: such as weight_decay, betas, momentum, damping.

    Raises:
        ValueError: there is no such optimizer, or the plan has no rules for it.
        ImportError: SOAP without pytorch_optimizer.

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
    if name not in (*by_name, *_OURS):
        known = ", ".join([*sorted(by_name), *_OURS])
        raise ValueError(f"torch.optim has no {optimizer!r}; it has {known}")
    hooked = name in ("kfac", "foof")
    own = {key: options.pop(key) for key in _KFAC if key in options} if hooked else {}
    left: list[Group] = []
    rest = lr if rest_lr is None else rest_lr
    if name in ("muon", *_MATRICES) or adamw is not None:
        decay = {k: v for k, v in options.items() if k in ("weight_decay", "decay")}
        roles = ROLES if name in _MATRICES and adamw is None else ("hidden", "expert")
        both = {name: {"lr": lr, **options}, "adamw": {"lr": rest, **decay, **(adamw or {})}}
        groups, left = split_groups(plan, model, both, roles=roles)
    else:
        groups = plan.param_groups(model, name, lr=lr, **options)
    others: list[torch.optim.Optimizer] = [torch.optim.AdamW(left)] if left else []
    if name == "shampoo":
        from paramz.optim.shampoo.shampoo import Shampoo

        return [Shampoo(groups), *others]
    if name == "soap":
        return [_soap(groups), *others]
    if name in _OURS:
        from paramz.optim.kfac.kfac import KFAC

        return [KFAC(groups, model, factors="inputs" if name == "foof" else "both", **own), *others]
    fused = {"fused": True} if name in _FUSED and _can_fuse(model) else {}
    return [by_name[name](groups, **fused), *others]


def _soap(groups: list[Group]) -> torch.optim.Optimizer:
    try:
        from pytorch_optimizer import SOAP
    except ImportError as error:
        raise ImportError(
            "SOAP is pytorch_optimizer's: pip install 'torch-paramz[second-order]'"
        ) from error
    made: torch.optim.Optimizer = SOAP(groups)
    return made


def _can_fuse(model: nn.Module) -> bool:
    return all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters()
    )
