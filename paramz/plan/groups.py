"""Parameter groups: the plan's rules as plain dicts that any torch optimizer takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import nn

from paramz.plan.experts import warn_of_few
from paramz.plan.floored import warn_of_bounded, warn_of_floored
from paramz.plan.own_factor import usual_factor
from paramz.plan.ratios import lr_ratio, policy_ratio
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.settings import Settings
from paramz.plan.sliced import refuse_two_rates
from paramz.theory.families import Family
from paramz.theory.rules import ROLES

Group = dict[str, Any]
# The roles of matrices between two layers that grow, which matrix optimizers are for.
HIDDEN_ROLES = ("hidden", "expert", "inward", "latent", "outward")
# What groups keep of the plan, beside their roles, so that `Plan.check` can compare: the names of
# their tensors, their lr as it was planned, and the optimizer that it was planned for, with the
# factor that this puts on its steps.
NAMES, PLANNED_LR, PLANNED_FOR = "names", "planned_lr", "planned_for"
PLANNED_FACTOR = "planned_factor"
# What the base's learning rate was multiplied by, which tells the groups of another plan.
PLANNED_RATIO = "planned_ratio"
# The base's own, of roles without one of theirs: all groups of an optimizer have one.
BASE_LR = "base_lr"
# The other values that the rules move, under the name that they had when they were planned, and
# the kind of decay that they were planned for.
BASE_DECAY, BASE_EPS, PLANNED_DECAY = "base_weight_decay", "base_eps", "planned_decay"
PLANNED_VALUES = {"weight_decay": "planned_weight_decay", "eps": "planned_eps"}

Tensors = Sequence[tuple[Row, nn.Parameter]]


def make_groups(rulebook: Rulebook, tensors: Tensors, settings: Settings) -> list[Group]:
    """One group per distinct set of hyperparameters, see `Plan.param_groups`.

    Args:
        rulebook: the plan's.
        tensors: rows and their parameters.
        settings: the optimizer's.

    Raises:
        ValueError: a readout is all zero and the optimizer is K-FAC, or the decay policy does not
            fit the optimizer.
        KeyError: the table has no rule for this optimizer and a tensor's role.

    Warns:
        UserWarning: the optimizer's steps follow gradients (SGD, K-FAC), and fewer of a layer's
            experts are active, by share; or it is Adafactor, and weights are so small that its
            steps are not relative to them, or it is torch's, which bounds learning rates.
    """
    warn_of_few((row for row, _ in tensors), settings.family)
    warn_of_floored(rulebook, tensors, settings)
    by_lr: dict[float, list[tuple[Row, nn.Parameter]]] = {}
    for row, parameter in tensors:
        lr = settings.role_lr.get(row.role, settings.lr)
        by_lr.setdefault(lr, []).append((row, parameter))
    found = (_at_one_lr(rulebook, some, settings, lr) for lr, some in by_lr.items())
    groups = [group for some in found for group in some]
    warn_of_bounded([group["lr"] for group in groups], settings)
    return groups


def split_tensors(
    tensors: Tensors, roles: Collection[str], family: Family
) -> tuple[Tensors, Tensors]:
    """The matrices of some roles, for an optimizer that takes those, and all the rest.

    Args:
        tensors: rows and their parameters.
        roles: of the matrices that the first optimizer takes.
        family: the first optimizer's; kernels of convolutions are no matrices for Muon.

    Raises:
        ValueError: there is no such role.
    """
    roles = (roles,) if isinstance(roles, str) else tuple(roles)
    if unknown := [role for role in roles if role not in ROLES]:
        raise ValueError(
            f"roles has {', '.join(map(repr, unknown))}, but the roles are {', '.join(ROLES)}"
        )
    matrices = [(row, p) for row, p in tensors if is_matrix_of(row, roles, family)]
    chosen = {row.name for row, _ in matrices}
    return matrices, [(row, p) for row, p in tensors if row.name not in chosen]


def refuse_misplaced(parts: Sequence[tuple[Tensors, Settings]]) -> None:
    """Raise if an optimizer got the learning rate of a role whose tensors the other one trains.

    Args:
        parts: the tensors and settings of both.

    Raises:
        ValueError: a ``role_lr`` or ``no_decay`` that neither would read.
    """
    for (own, asked), (others, beside) in (parts, parts[::-1]):
        here, there = ({row.role for row, _ in some} for some in (own, others))
        for option in ("role_lr", "no_decay"):
            lost = [
                role
                for role in getattr(asked, option)
                if role in there - here and role not in getattr(beside, option)
            ]
            if lost:
                raise ValueError(
                    f"{option} of {asked.family.name} has {', '.join(map(repr, lost))}, whose "
                    f"tensors {beside.family.name} trains: give it to that optimizer"
                )


def is_matrix_of(row: Row, roles: Collection[str], family: Family) -> bool:
    """Whether an optimizer for matrices takes a tensor.

    Args:
        row: the tensor's.
        roles: of the matrices that the optimizer takes.
        family: the optimizer's; kernels of convolutions are no matrices for Muon.
    """
    axes = (2,) if family.shape_factor else (2, 3, 4, 5)
    return row.role in roles and len(row.shape) in axes and not row.slices


def _at_one_lr(
    rulebook: Rulebook, tensors: Iterable[tuple[Row, nn.Parameter]], settings: Settings, lr: float
) -> list[Group]:
    merged: dict[tuple[Any, ...], Group] = {}
    known: dict[tuple[Any, ...], dict[str, float]] = {}
    for row, parameter in tensors:
        if settings.family.damping is not None:
            _refuse_zero_readout(row, parameter, settings.family)
        values = known.get(row.kind) or row_values(rulebook, row, settings, lr)
        known[row.kind] = values
        apart = {None: (), "shape": row.shape, "tensor": (row.name,)}[settings.split]
        key = (*map(float, values.values()), *apart)  # tensors are told apart even if equal
        held = {settings.epsilon if name == "eps" else name: x for name, x in values.items()}
        group = merged.setdefault(key, {"params": [], **held, **settings.options, "roles": []})
        group.setdefault(NAMES, []).append(row.name)
        # A number: a schedule changes a learning rate that is a tensor in place.
        group.setdefault(PLANNED_LR, float(values["lr"]))
        group.setdefault(PLANNED_FOR, settings.family.name)
        group |= {name: values[key] for key, name in PLANNED_VALUES.items() if key in values}
        group |= {BASE_DECAY: base_decay(rulebook, settings), BASE_LR: float(settings.lr)}
        group |= {PLANNED_DECAY: settings.family.decay}
        group |= {BASE_EPS: float(settings.base_eps)} if "eps" in values else {}
        if PLANNED_RATIO not in group:
            group[PLANNED_RATIO] = lr_ratio(rulebook, row, settings.family, settings.own)
        if settings.family.shape_factor or settings.family.relative:
            group.setdefault(PLANNED_FACTOR, (settings.own or usual_factor(settings.family)).name)
        group["params"].append(parameter)
        if row.role not in group["roles"]:
            group["roles"].append(row.role)
    return list(merged.values())


def row_values(rulebook: Rulebook, row: Row, settings: Settings, lr: float) -> dict[str, float]:
    """The hyperparameters of one tensor at the target.

    Raises:
        ValueError: slices of the tensor want different ones.
    """
    family = settings.family
    refuse_two_rates(rulebook, row, family)
    values = {
        "lr": lr * lr_ratio(rulebook, row, family, settings.own),
        "weight_decay": base_decay(rulebook, settings) * policy_ratio(rulebook, row, settings, lr),
    }
    if row.role in settings.no_decay or (row.part is not None and not row.part.decays):
        values["weight_decay"] = 0.0
    rule = rulebook.rule(row, family)
    if family.eps is not None:
        values["eps"] = settings.base_eps * rule.eps(row.ratios)
    if family.damping is not None:
        values["damping"] = settings.base_damping
        values["damping_a"] = settings.base_damping * rule.damping_a(row.ratios)
        values["damping_b"] = settings.base_damping * rule.damping_b(row.ratios)
    return values


def base_decay(rulebook: Rulebook, settings: Settings) -> float:
    """The weight decay that was asked for at the base, or the optimizer's own default."""
    # That is meant to be multiplied by lr, which independent decay is not.
    default = 0.0 if rulebook.scheme.decay == "independent" else settings.family.weight_decay
    return default if settings.weight_decay is None else settings.weight_decay


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
