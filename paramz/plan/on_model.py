"""What a plan leaves on a model: marks by which it and its config know, and factors in modules."""

from __future__ import annotations

import math

import torch
from torch import nn

from paramz.plan.lost_factors import PLAN_MARK, set_factor
from paramz.plan.on_config import mark_config_
from paramz.plan.plan import Plan
from paramz.plan.row import ModuleScale


def plan_of(model: nn.Module) -> Plan | None:
    """The plan that a model is under, or None. It survives deepcopy and pickle.

    >>> plan_of(nn.Linear(2, 2)) is None
    True
    """
    found = vars(model).get(PLAN_MARK)
    return found if isinstance(found, Plan) else None


def remember_(model: nn.Module, plan: Plan | None) -> None:
    """Let a model know its plan, or with None forget it."""
    if plan is None:
        vars(model).pop(PLAN_MARK, None)
    else:
        vars(model)[PLAN_MARK] = plan
    mark_config_(model, plan)


def require_plan(model: nn.Module, plan: Plan | None = None) -> Plan:
    """The given plan, or the one that the model is under.

    Raises:
        ValueError: there is neither.
    """
    made = plan or plan_of(model)
    if made is None:
        raise ValueError(
            f"this {type(model).__name__} is under no plan: call paramz.parametrize_ first (the "
            "plan sits on the module that was passed to it, not on wrappers around it)"
        )
    return made


def set_scale_(model: nn.Module, scale: ModuleScale, value: float) -> None:
    """Set the factor that a module keeps in an attribute.

    Raises:
        ValueError: the attribute has neither of the values that the plan knows.
    """
    module = model.get_submodule(scale.module)
    current = set_factor(module, scale.attribute)
    if not math.isclose(current, scale.plain) and not math.isclose(current, scale.value):
        raise ValueError(
            f"{scale.module}.{scale.attribute} is {current}, where the plan expects {scale.plain}: "
            "the model was changed since it was planned"
        )
    if isinstance(buffer := getattr(module, scale.attribute), torch.Tensor):
        buffer.fill_(value)  # Gemma's embedding has both: this is read, the float is kept beside it
        setattr(module, f"scalar_{scale.attribute}", value)
    else:
        setattr(module, scale.attribute, type(current)(value))
