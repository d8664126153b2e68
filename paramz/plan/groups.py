"""Parameter groups: the plan's rules as plain dicts that any torch optimizer takes."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import nn

from paramz.theory.families import family as find_family
from paramz.theory.rules import ROLES, Family

if TYPE_CHECKING:
    from paramz.plan.plan import Plan
    from paramz.plan.roles import Row

Group = dict[str, Any]

# What wrappers put in front of a parameter's name (DDP, torch's AveragedModel, PEFT), one in
# another, and between its parts (compile, FSDP1, checkpointing, PEFT).
_BEFORE = ("module.", "base_model.model.")
_BETWEEN = (
    ("_orig_mod.", ""),
    ("_fsdp_wrapped_module.", ""),
    ("_checkpoint_wrapped_module.", ""),
    (".base_layer.", "."),
)


def clean_name(name: str, known: Container[str] = ()) -> str:
    """A parameter's name without what DDP, FSDP, compile, checkpointing, EMA and PEFT add.

    Args:
        name: as in ``named_parameters()`` of the wrapper.
        known: stops at one of these names, for models that have a ``module`` of their own.

    >>> clean_name("module._orig_mod.module.layers.0.weight")
    'layers.0.weight'
    """
    if name in known:
        return name
    for wrapper, plain in _BETWEEN:
        name = name.replace(wrapper, plain)
    while name not in known:
        wrapper = next((w for w in _BEFORE if name.startswith(w)), "")
        if not wrapper:
            break
        name = name.removeprefix(wrapper)
    return name


def param_groups(
    plan: Plan,
    model: nn.Module,
    optimizer: Any,
    *,
    lr: float,
    weight_decay: float | None,
    eps: float | None,
    damping: float | None,
    decay: str | None,
    no_decay: tuple[str, ...],
    role_lr: Mapping[str, float] | None,
    **options: Any,
) -> list[Group]:
    """See `Plan.param_groups`."""
    parts: dict[float, list[tuple[Row, nn.Parameter]]] = {}
    own = _known_roles(role_lr or {})
    for row, parameter in trainable_rows(plan, model):
        parts.setdefault(own.get(row.role, lr), []).append((row, parameter))
    settings = (weight_decay, eps, damping, decay, no_decay, options)
    groups = (_groups(plan, part, optimizer, at, *settings) for at, part in parts.items())
    return [group for some in groups for group in some]


def _known_roles(role_lr: Mapping[str, float]) -> Mapping[str, float]:
    unknown = [role for role in role_lr if role not in ROLES]
    if unknown:
        raise ValueError(
            f"role_lr has {', '.join(map(repr, unknown))}, but the roles are {', '.join(ROLES)}"
        )
    return role_lr


def split_groups(
    plan: Plan,
    model: nn.Module,
    optimizers: Mapping[str, Mapping[str, Any]],
    roles: tuple[str, ...] = ("hidden", "expert"),
) -> list[list[Group]]:
    """See `Plan.split_groups`."""
    if len(optimizers) != 2:
        raise ValueError(
            f"split_groups takes two optimizers, one for hidden matrices and one for the rest, as "
            f"in muon=dict(lr=0.02), adamw=dict(lr=3e-3); got {list(optimizers)}"
        )
    tensors = trainable_rows(plan, model)
    first = find_family(next(iter(optimizers)))
    axes = (2,) if first.shape_factor else (2, 3, 4, 5)
    matrices = [(row, p) for row, p in tensors if row.role in roles and len(row.shape) in axes]
    chosen = {row.name for row, _ in matrices}
    rest = [(row, p) for row, p in tensors if row.name not in chosen]
    return [
        _groups(
            plan,
            part,
            name,
            settings["lr"],
            settings.get("weight_decay"),
            settings.get("eps"),
            settings.get("damping"),
            settings.get("decay"),
            settings.get("no_decay", ()),
            {k: v for k, v in settings.items() if k not in _NAMED},
        )
        for part, (name, settings) in zip((matrices, rest), optimizers.items(), strict=True)
    ]


_NAMED = ("lr", "weight_decay", "eps", "damping", "decay", "no_decay")

# What stays the same in all tensors and at every scale, by the name of the policy.
DECAYS: Mapping[str, str] = MappingProxyType(
    {
        "lr-constant": "lr * weight_decay, what decay takes away in a step: Yang et al. 2022 "
        "(TP-V), appendix B.3; Dey et al. 2025 (arXiv 2505.01618)",
        "coupled": "weight_decay itself, so that decay weakens where the learning rate does: what "
        "torch's optimizers do when nobody scales it",
        "independent": "weight_decay as the part taken away in a step at the peak learning rate, "
        "whatever that is: Loshchilov and Hutter 2019; Wortsman et al. 2023 (arXiv 2309.14322)",
        "1/width": "weight_decay * width, with weight_decay as in independent: Qiu et al. 2025 "
        "(arXiv 2512.05620), for runs whose length grows with the model",
    }
)


def trainable_rows(plan: Plan, model: nn.Module) -> list[tuple[Row, nn.Parameter]]:
    """Every trainable tensor with its row: each exactly once, or an error."""
    rows = {name: row for row in plan.rows for name in (row.name, *row.aliases)}
    found, unknown = [], []
    seen = set()
    for name, parameter in model.named_parameters():
        row = rows.get(clean_name(name, rows))
        if row is None:
            unknown.append(f"{name} {tuple(parameter.shape)}")
            continue
        seen.add(row.name)
        if parameter.requires_grad:
            found.append((row, parameter))
    missing = [row.name for row in plan.rows if row.name not in seen]
    if unknown or missing:
        raise ValueError(
            "the model's parameters are not those of the plan.\n"
            f"  not in the plan: {', '.join(unknown) or 'none'}\n"
            f"  not in the model: {', '.join(missing) or 'none'}\n"
            "If parameters were added after planning (adapters, a new head), plan the final model: "
            "paramz.parametrize_(final, ..., base=a factory that adds them, too), or "
            "paramz.adopt_(final, ...) if its weights are trained."
        )
    return found


def _groups(
    plan: Plan,
    tensors: Iterable[tuple[Row, nn.Parameter]],
    optimizer: Any,
    lr: float,
    weight_decay: float | None,
    eps: float | None,
    damping: float | None,
    policy: str | None,
    no_decay: tuple[str, ...],
    options: Mapping[str, Any],
) -> list[Group]:
    adjust_lr_fn = options.get("adjust_lr_fn")
    family = find_family(
        optimizer,
        decoupled=options.get("decoupled_weight_decay"),
        exponent=options.get("exponent"),
        graft=options.get("graft"),
    )
    # An optimizer's own default is meant to be multiplied by lr, which independent decay is not.
    default = 0.0 if plan.parametrization.absolute else family.weight_decay
    decay = default if weight_decay is None else weight_decay
    base_eps = (family.eps or 0.0) if eps is None else eps
    base_damping = (family.damping or 0.0) if damping is None else damping
    if damping is not None and family.damping is None:
        raise ValueError(f"damping={damping!r}: {family.name} has no damping")
    numbers = {"lr": lr, "weight_decay": decay, "eps": base_eps, "damping": base_damping}
    for name, value in numbers.items():
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name}={value!r} must be a finite number that is not negative")
    merged: dict[tuple[float, ...], Group] = {}
    for row, parameter in tensors:
        values = {
            "lr": lr * lr_ratio(plan, row, family, adjust_lr_fn),
            "weight_decay": decay * policy_ratio(plan, row, family, policy, lr, adjust_lr_fn),
        }
        if row.role in no_decay or (row.part is not None and not row.part.decays):
            values["weight_decay"] = 0.0
        if family.eps is not None:
            values["eps"] = base_eps * plan.rule(row, family).eps(row.ratios)
        if family.damping is not None:
            rule = plan.rule(row, family)
            values["damping"] = base_damping
            values["damping_a"] = base_damping * rule.damping_a(row.ratios)
            values["damping_b"] = base_damping * rule.damping_b(row.ratios)
            _refuse_zero_readout(row, parameter, family)
        group = merged.setdefault(
            tuple(values.values()), {"params": [], **values, **options, "roles": []}
        )
        group["params"].append(parameter)
        if row.role not in group["roles"]:
            group["roles"].append(row.role)
    return list(merged.values())


def _refuse_zero_readout(row: Row, parameter: nn.Parameter, family: Family) -> None:
    """K-FAC divides by gradients that a zero readout makes zero (Ishikawa and Karakida 2023)."""
    if family.column != "kfac" or row.role != "output" or parameter.is_meta:
        return
    if not parameter.detach().any():
        raise ValueError(
            f"{row.name} {row.shape} is a readout of zeros: no gradient passes it, so "
            f"{family.name} would divide all layers below by zero and its first steps would train "
            "the readout alone. Draw it where the model is built, as in "
            "torch.nn.init.normal_(weight, std=fan_in**-0.5); parametrize_ scales that as 1/fan_in"
        )


def lr_ratio(plan: Plan, row: Row, family: Family, adjust_lr_fn: str | None = None) -> float:
    """What the base learning rate is multiplied by for one tensor."""
    lr = plan.rule(row, family).lr(row.ratios)
    return lr / _own_ratio(plan, row, family, adjust_lr_fn)


def policy_ratio(
    plan: Plan,
    row: Row,
    family: Family,
    policy: str | None,
    lr: float,
    adjust_lr_fn: str | None = None,
) -> float:
    """What the base weight decay is multiplied by for one tensor, under a policy of `DECAYS`."""
    if policy is None:
        apart = family.decay != "l2-normalised"
        policy = "independent" if plan.parametrization.absolute and apart else "lr-constant"
    if policy not in DECAYS:
        raise ValueError(f"decay={policy!r} is no policy; there are {', '.join(DECAYS)}")
    if policy == "coupled":
        return 1.0
    ratio = decay_ratio(plan, row, family, adjust_lr_fn)
    if policy == "lr-constant" or lr == 0.0:
        return ratio
    if family.decay == "l2-normalised":
        raise ValueError(
            f"decay={policy!r} needs decay apart from the gradient, and {family.name} adds it to "
            "the gradient before normalising: use adamw, or decoupled_weight_decay=True"
        )
    width = max([1.0, *row.widths]) if policy == "1/width" else 1.0
    return ratio / (lr * width)


def decay_ratio(plan: Plan, row: Row, family: Family, adjust_lr_fn: str | None = None) -> float:
    """What the base weight decay is multiplied by for one tensor."""
    rule = plan.rule(row, family)
    if family.decay == "l2-normalised":
        # wd * w is added to the gradient before it is normalised, so it must follow the gradient.
        return (rule.weight_decay * rule.eps)(row.ratios)
    decay = rule.weight_decay(row.ratios)
    if family.decay == "decoupled":
        # p -= lr wd p uses the group's lr without the optimizer's own factor.
        decay *= _own_ratio(plan, row, family, adjust_lr_fn)
    return decay


def _own_ratio(plan: Plan, row: Row, family: Family, adjust_lr_fn: str | None) -> float:
    """Target / base of the factor that the optimizer itself puts on its steps."""
    if family.relative:
        return plan.rule(row, family).init_std(row.ratios)
    if family.shape_factor:
        return _muon_factor(row.shape, adjust_lr_fn) / _muon_factor(row.base_shape, adjust_lr_fn)
    return 1.0


def _muon_factor(shape: tuple[int, ...], adjust_lr_fn: str | None) -> float:
    """torch.optim.Muon's own factor: sqrt(max(1, rows/cols)), or 0.2 sqrt(max(rows, cols))."""
    rows, columns = shape[0], math.prod(shape[1:])
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
