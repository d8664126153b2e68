"""What the base's learning rate and weight decay are multiplied by for one tensor."""

from __future__ import annotations

from paramz.plan.own_factor import OwnFactor, usual_factor
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.settings import Settings
from paramz.theory.families import Family


def lr_ratio(rulebook: Rulebook, row: Row, family: Family, own: OwnFactor | None = None) -> float:
    """What the base learning rate is multiplied by for one tensor.

    Args:
        rulebook: the plan's.
        row: the tensor's.
        family: the optimizer's.
        own: the factor that the optimizer puts on its steps; None for torch's own optimizer.
    """
    lr = rulebook.rule(row, family).lr(row.ratios)
    return lr / _own_ratio(rulebook, row, family, own)


def decay_ratio(
    rulebook: Rulebook, row: Row, family: Family, own: OwnFactor | None = None
) -> float:
    """What the base weight decay is multiplied by for one tensor, so that lr * decay is constant.

    Args:
        rulebook: the plan's.
        row: the tensor's.
        family: the optimizer's.
        own: the factor that the optimizer puts on its steps; None for torch's own optimizer.
    """
    rule = rulebook.rule(row, family)
    if family.decay == "l2-normalised":
        # wd * w is added to the gradient before it is normalised, so it must follow the gradient.
        return (rule.weight_decay * rule.eps)(row.ratios)
    decay = rule.weight_decay(row.ratios)
    if family.decay == "decoupled" and not (own is not None and own.decays):
        # p -= lr wd p uses the group's lr without the optimizer's own factor.
        decay *= _own_ratio(rulebook, row, family, own)
    return decay


def policy_ratio(rulebook: Rulebook, row: Row, settings: Settings, lr: float) -> float:
    """What the base weight decay is multiplied by for one tensor, under a policy of `DECAYS`.

    Args:
        rulebook: the plan's.
        row: the tensor's.
        settings: the optimizer's.
        lr: the tensor's learning rate at the base.

    Raises:
        ValueError: the policy needs decay apart from the gradient and the optimizer adds it there.
    """
    family, policy = settings.family, settings.decay
    apart = family.decay != "l2-normalised"
    if policy is None:
        policy = rulebook.scheme.decay if apart else "lr-constant"
    if policy == "coupled":
        return 1.0
    ratio = decay_ratio(rulebook, row, family, settings.own)
    if policy == "lr-constant" or lr == 0.0:
        return ratio
    if not apart:
        raise ValueError(
            f"decay={policy!r} needs decay apart from the gradient, and {family.name} adds it to "
            "the gradient before normalising: use adamw, or decoupled_weight_decay=True"
        )
    width = max(row.widths, default=1.0)
    if policy == "sqrt-width":
        return ratio / width**0.5 if row.role not in ("input", "vector", "scalar") else 0.0
    return ratio / (lr * width) if policy == "1/width" else ratio / lr


def _own_ratio(rulebook: Rulebook, row: Row, family: Family, own: OwnFactor | None) -> float:
    """Target / base of the factor that the optimizer itself puts on its steps."""
    own = usual_factor(family) if own is None else own
    ratio = own.of_shape(row.shape) / own.of_shape(row.base_shape)
    if own.relative:
        ratio *= rulebook.rule(row, family).init_std(row.ratios)
    return ratio
