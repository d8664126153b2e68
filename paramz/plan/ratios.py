"""What the base's learning rate and weight decay are multiplied by for one tensor."""

from __future__ import annotations

import math

from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.settings import Settings
from paramz.theory.families import Family


def lr_ratio(
    rulebook: Rulebook, row: Row, family: Family, adjust_lr_fn: str | None = None
) -> float:
    """What the base learning rate is multiplied by for one tensor.

    Args:
        rulebook: the plan's.
        row: the tensor's.
        family: the optimizer's.
        adjust_lr_fn: that of torch.optim.Muon.
    """
    lr = rulebook.rule(row, family).lr(row.ratios)
    return lr / _own_ratio(rulebook, row, family, adjust_lr_fn)


def decay_ratio(
    rulebook: Rulebook, row: Row, family: Family, adjust_lr_fn: str | None = None
) -> float:
    """What the base weight decay is multiplied by for one tensor, so that lr * decay is constant.

    Args:
        rulebook: the plan's.
        row: the tensor's.
        family: the optimizer's.
        adjust_lr_fn: that of torch.optim.Muon.
    """
    rule = rulebook.rule(row, family)
    if family.decay == "l2-normalised":
        # wd * w is added to the gradient before it is normalised, so it must follow the gradient.
        return (rule.weight_decay * rule.eps)(row.ratios)
    decay = rule.weight_decay(row.ratios)
    if family.decay == "decoupled":
        # p -= lr wd p uses the group's lr without the optimizer's own factor.
        decay *= _own_ratio(rulebook, row, family, adjust_lr_fn)
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
    ratio = decay_ratio(rulebook, row, family, settings.adjust_lr_fn)
    if policy == "lr-constant" or lr == 0.0:
        return ratio
    if not apart:
        raise ValueError(
            f"decay={policy!r} needs decay apart from the gradient, and {family.name} adds it to "
            "the gradient before normalising: use adamw, or decoupled_weight_decay=True"
        )
    width = max([1.0, *row.widths]) if policy == "1/width" else 1.0
    return ratio / (lr * width)


def _own_ratio(rulebook: Rulebook, row: Row, family: Family, adjust_lr_fn: str | None) -> float:
    """Target / base of the factor that the optimizer itself puts on its steps."""
    if family.relative:
        return rulebook.rule(row, family).init_std(row.ratios)
    if family.shape_factor:
        return _muon_factor(row.shape, adjust_lr_fn) / _muon_factor(row.base_shape, adjust_lr_fn)
    return 1.0


def _muon_factor(shape: tuple[int, ...], adjust_lr_fn: str | None) -> float:
    """torch.optim.Muon's own factor: sqrt(max(1, rows/cols)), or 0.2 sqrt(max(rows, cols))."""
    rows, columns = shape[0], math.prod(shape[1:])
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
