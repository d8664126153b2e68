"""Make the optimizers for a plan's groups, by name.

To support another optimizer that torch does not have, add its family to `paramz.theory.families`
and its maker to `MAKERS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from paramz.anatomy.sound import require_model
from paramz.optim.constrained import constrained
from paramz.optim.kfac.kfac import KFAC
from paramz.optim.shampoo.shampoo import Shampoo
from paramz.plan.groups import HIDDEN_ROLES, Group
from paramz.plan.plan import Plan
from paramz.plan.settings import torch_optimizers
from paramz.theory.families import FAMILIES
from paramz.theory.rules import ROLES

Optimizer = torch.optim.Optimizer
OwnOptions = dict[str, Any]


@dataclass(frozen=True)
class Maker:
    """How one optimizer is made.

    Attributes:
        make: makes it from its groups, the model, and the options in ``own`` that were given.
        takes: which tensors it trains: ``all``, ``matrices`` that map, or only those of ``hidden``
            layers. An AdamW trains the others.
        own: names of the options of its constructor that are not settings of its groups.
    """

    make: Callable[[list[Group], nn.Module, OwnOptions], Optimizer]
    takes: Literal["all", "matrices", "hidden"] = "all"
    own: tuple[str, ...] = ()


def _kfac(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    return KFAC(groups, model, factors="both", **own)


def _foof(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    return KFAC(groups, model, factors="inputs", **own)


def _shampoo(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    return Shampoo(groups)


def _soap(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    try:
        from pytorch_optimizer import SOAP
    except ImportError as error:
        raise ImportError(
            "SOAP comes from pytorch_optimizer: pip install 'torch-paramz[second-order]'"
        ) from error
    made: Optimizer = SOAP(groups, **own)
    return made


def _muon(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    return torch.optim.Muon(groups)


def _adamh(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    return constrained(torch.optim.AdamW(groups))


def _muonh(groups: list[Group], model: nn.Module, own: OwnOptions) -> Optimizer:
    return constrained(torch.optim.Muon(groups))


def _torch(kind: Callable[..., Optimizer]) -> Maker:
    return Maker(lambda groups, model, own: kind(groups))


def _fused(kind: Callable[..., Optimizer]) -> Maker:
    """The maker of a torch optimizer with one kernel for all tensors, which has to be asked for."""
    return Maker(lambda groups, model, own: kind(groups, **_fused_if_possible(model)))


def _fused_if_possible(model: nn.Module) -> OwnOptions:
    fits = all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters()
    )
    return {"fused": True} if fits else {}


_KFAC_OWN = (
    "likelihood", "fisher", "sharing", "damping_kind", "factor_decay",
    "covariance_every", "inverse_every", "block_size", "seed",
)  # fmt: skip

MAKERS: Mapping[str, Maker] = {
    **{name: _torch(kind) for name, kind in torch_optimizers().items()},
    "adam": _fused(torch.optim.Adam),
    "adamw": _fused(torch.optim.AdamW),
    "sgd": _fused(torch.optim.SGD),
    "muon": Maker(_muon, takes="hidden"),
    "adamh": Maker(_adamh, takes="hidden"),
    "muonh": Maker(_muonh, takes="hidden"),
    "kfac": Maker(_kfac, own=_KFAC_OWN),
    "foof": Maker(_foof, own=_KFAC_OWN),
    "shampoo": Maker(_shampoo, takes="matrices"),
    "soap": Maker(_soap, takes="matrices", own=("data_format", "maximize")),
}


# The roles of maps: what is applied entry by entry may have several axes, too, as class tokens,
# (1, 1, d), and depthwise kernels have, and what grows nowhere has no rule for matrices.
_MATRICES = tuple(role for role in ROLES if role not in ("vector", "scalar"))


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
) -> list[Optimizer]:
    """The optimizers for a model under a plan: one, or one and an AdamW for the other tensors.

    Args:
        plan: the model's plan.
        model: the model.
        optimizer: the name, in any case, of an optimizer: of torch's (``"adamw"``, ``"sgd"``,
            ``"muon"``, ...), of those that paramz brings (``"kfac"``, ``"foof"``, ``"shampoo"``,
            ``"adamh"``, ``"muonh"``), or ``"soap"``, that of pytorch_optimizer.
        lr: learning rate at the base.
        rest_lr: learning rate of the AdamW beside Muon, MuonH or AdamH (which train hidden
            matrices), Shampoo or SOAP (which train all matrices). If left out, it is ``lr``, which
            suits SOAP, and Muon with ``adjust_lr_fn="match_rms_adamw"``.
        adamw: settings of an AdamW for all but hidden matrices, such as ``dict(lr=3e-3)``. Without
            it, K-FAC and FOOF train all tensors, Shampoo and SOAP all matrices.
        **options: settings as for `Plan.param_groups`, such as weight_decay, betas or role_lr. The
            AdamW beside another optimizer has the same weight_decay, decay, no_decay and role_lr.

    Raises:
        ValueError: there is no such optimizer, the plan has no rules for it, it does not read an
            option that its learning rates depend on, or it would train nothing.
        TypeError: an option that neither paramz nor the optimizer has, or ``rest_lr`` where one
            optimizer trains all.
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
    require_model(model)
    name = optimizer.lower()
    if name not in MAKERS:
        raise ValueError(_unknown(optimizer))
    maker = MAKERS[name]
    own = {key: options.pop(key) for key in maker.own if key in options}
    left: list[Group] = []
    if maker.takes == "all" and adamw is None:
        if rest_lr is not None:
            raise TypeError(
                f"rest_lr={rest_lr!r}: {name} trains all tensors, so no AdamW is beside it; rates "
                "of roles of their own are role_lr={'input': ...}"
            )
        groups = plan.param_groups(model, name, lr=lr, **options)
    else:
        shared = {key: value for key, value in options.items() if key in SHARED}
        beside = {"lr": lr if rest_lr is None else rest_lr, **shared, **(adamw or {})}
        roles = _MATRICES if maker.takes == "matrices" and adamw is None else HIDDEN_ROLES
        if FAMILIES[name].sphere:
            options.pop("weight_decay", None)  # that of the AdamW beside it
        both = {name: {"lr": lr, **options}, "adamw": beside}
        groups, left = plan.split_groups(model, roles=roles, **both)
        if not groups:
            raise ValueError(_nothing_for(name, maker))
    made = [maker.make(groups, model, own)]
    if left:
        made.append(torch.optim.AdamW(left))
    # An option that torch's class leaves unread must not have chosen other learning rates.
    plan.check(*made, model=model)
    return made


# The settings that the AdamW beside another optimizer shares with it.
SHARED = ("weight_decay", "decay", "no_decay", "role_lr")


def _nothing_for(name: str, maker: Maker) -> str:
    """What to say of an optimizer of which the AdamW beside it would train every tensor."""
    kinds = "hidden matrices" if maker.takes == "hidden" else "matrices"
    kernels = " (kernels of convolutions are none for it)" if FAMILIES[name].shape_factor else ""
    return (
        f"{name} trains {kinds}{kernels}, and under this plan none of the model's trainable tensors"
        " is one, so that the AdamW beside it would train all: take 'adamw', or 'kfac', which "
        "trains kernels, too"
    )


def _unknown(optimizer: str) -> str:
    """What to say of an optimizer that cannot be made here."""
    made = sorted(name for name in MAKERS if name in FAMILIES)
    name = optimizer.lower()
    if name in FAMILIES:
        return (
            f"paramz has rules for {optimizer!r}, but neither torch.optim nor paramz makes one: "
            f"give plan.param_groups(model, {name!r}, lr=...) to the optimizer of your library. "
            f"Made here are {', '.join(made)}"
        )
    close = difflib.get_close_matches(name, made, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"neither torch.optim nor paramz has {optimizer!r}{hint}; there are {', '.join(made)}"
