"""Where Adafactor's steps are not those that a plan counts on: below its floor, above its bound."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from paramz.anatomy.tensors import is_trainable_kind, listed
from paramz.plan.own_factor import usual_factor
from paramz.plan.row import Init, Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.settings import Settings

# Adafactor's second epsilon, as all libraries have it.
_FLOOR = 1e-3
# Steps of a long run.
_LONG = 100_000
# What a step may differ by without a word.
_OFF = 1.1
_DRAW = (
    ", or draw matrices of zeros before paramz.parametrize_ "
    "(torch.nn.init.normal_(weight, std=fan_in**-0.5))"
)


def warn_of_floored(
    rulebook: Rulebook, tensors: Sequence[tuple[Row, nn.Parameter]], settings: Settings
) -> None:
    """Warn of weights whose steps are not in proportion to their size, as the plan counts on.

    Adafactor's step is lr max(eps2, RMS(W)). The plan divides by how a weight's size moves with
    scale; of zeros, and of what is smaller than eps2, the floor does not move with it.

    Args:
        rulebook: the plan's.
        tensors: rows and their parameters.
        settings: the optimizer's.

    Warns:
        UserWarning: there are such weights; it says how many times too large their steps are.
    """
    family = settings.family
    own = usual_factor(family) if settings.own is None else settings.own
    if family.sphere or not own.relative:
        return
    floor = _floor(settings.options.get("eps2", settings.options.get("eps")))
    factors: dict[str, float] = {}
    drawn = False
    for row, parameter in tensors:
        planned = rulebook.rule(row, family).init_std(row.ratios)
        if planned == 1.0 or parameter.is_meta or not is_trainable_kind(parameter):
            continue
        size = _rms(parameter)
        base = size / planned if row.base_init is None else _size(row.base_init)
        factor = floor / max(floor, base) / planned
        if size < floor and factor > _OFF:
            factors[row.name] = factor
            # Biases and adapters start at zero for good reasons.
            drawn |= len(row.shape) >= 2 and not row.adapted
    if not factors:
        return
    worst = max(factors, key=lambda name: factors[name])
    warnings.warn(
        f"{listed(list(factors), 3)}: smaller than {floor:g} (or zero), where {family.name}'s "
        f"steps are in proportion to {floor:g} and not to a weight's size. The plan counts on the "
        f"size, so the first steps of {worst} are {factors[worst]:.3g} times too large. Use "
        "transformers' Adafactor with scale_parameter=False, or AdamW" + (_DRAW if drawn else ""),
        stacklevel=4,  # param_groups' caller
    )


def _floor(eps: Any) -> float:
    """The second of two epsilons, where it is given; pytorch_optimizer calls it eps2."""
    if isinstance(eps, tuple | list):
        return float(eps[1])
    return _FLOOR if eps is None else float(eps)


def warn_of_bounded(rates: Sequence[float], settings: Settings) -> None:
    """Warn of learning rates that torch's Adafactor does not take for long.

    Args:
        rates: of the groups.
        settings: the optimizer's.

    Warns:
        UserWarning: there are such rates; it says from which step on they are bounded.
    """
    own = usual_factor(settings.family) if settings.own is None else settings.own
    if settings.family.sphere or not own.relative or own.decays:
        return  # in other libraries' Adafactor, decay has the size of the weights, too
    if said := bound_on(rates):
        warnings.warn(said, stacklevel=4)  # param_groups' caller


def bound_on(rates: Sequence[float]) -> str | None:
    """What torch's Adafactor does to some learning rates: it takes min(lr, 1 / step^1/2).

    Args:
        rates: of its groups.
    """
    highest = max(map(float, rates), default=0.0)
    if len(set(rates)) < 2 or highest**-2 >= _LONG:
        return None
    return (
        "torch.optim.Adafactor takes the smaller of lr and 1 / sqrt(step), so that from "
        f"step {highest**-2:.0f} on its group at lr {highest:.4g} is below the plan's rate, and at "
        "last all groups are at one. Let a schedule keep every lr below 1 / sqrt(step), or use "
        "transformers' Adafactor with relative_step=False"
    )


def _rms(parameter: torch.Tensor) -> float:
    values = parameter.detach()
    return float(torch.linalg.vector_norm(values)) / math.sqrt(max(values.numel(), 1))


def _size(init: Init) -> float:
    return abs(init.value) if init.kind == "constant" else init.std
