"""Options of optimizers that hold at one width only, which no group can move: refused, by name.

They are absolute where the rules count on something relative: a decay that leaves the learning rate
out, a start of the averaged squares of gradients, a decay that goes through a preconditioner; or
they give steps the sizes of another optimizer's, which nobody named.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from paramz.theory.decay import read_decoupled
from paramz.theory.families import Family

# Options by which decay no longer is lr * weight_decay: pytorch_optimizer's, optimi's, timm's.
_NOT_TIMES_LR = ("fixed_decay", "decouple_lr", "corrected_weight_decay")
# Adagrad's first sum of squared gradients.
_START = "initial_accumulator_value"
# Bounds on gradients inside an optimizer: Adan's in pytorch_optimizer, LAMB's, LOMO's.
_CLIPS = ("max_grad_norm", "clip_grad_norm", "clip_grad_value")
# By which distributed_shampoo gets its steps' sizes from another optimizer, in classes of its own.
_GRAFT = "grafting_config"
# Columns with a rule for decay that is added to the gradient.
_WITH_COUPLED_DECAY = ("adam", "sgd")


def refuse_absolute(
    family: Family, optimizer: Any, options: Mapping[str, Any], weight_decay: Any = None
) -> None:
    """Raise if an option makes an optimizer's steps move otherwise with width than its rules say.

    Args:
        family: the optimizer's.
        optimizer: its name, class, or an instance.
        options: what was given; what was not is an instance's own, or the class's default.
        weight_decay: at the base; None for the optimizer's own.

    Raises:
        ValueError: there is such an option; the message says what to give instead.

    >>> from paramz.theory.families import ADAMW
    >>> refuse_absolute(ADAMW, "adamw", {"fixed_decay": True}, 0.1)
    Traceback (most recent call last):
    ...
    ValueError: fixed_decay=True takes weight_decay off the weights without the learning rate...
    """
    stated = {**_defaults(optimizer), **options}
    if stated.get(_START):
        raise ValueError(
            f"{_START}={stated[_START]!r} is added to squared gradients, whose size moves with "
            f"width, and {family.name} reads it in its constructor only, so no group can hold what "
            f"it would be at this width: leave {_START} at 0"
        )
    if family.exponent is not None and family.graft is None and stated.get(_GRAFT) is not None:
        raise ValueError(
            f"{_GRAFT}={stated[_GRAFT]!r} gives {family.name}'s steps the sizes of another "
            "optimizer's, and with them its learning rates: say which to plan.param_groups, with "
            "graft='adam', 'rmsprop', 'adagrad' or 'sgd'"
        )
    for option in _CLIPS:
        if stated.get(option):
            raise ValueError(
                f"{option}={stated[option]!r} bounds plain gradients inside the optimizer, and "
                f"their norm moves with width: leave {option} out and call "
                "paramz.clip_grad_norm_(plan, model, max_norm) before each step"
            )
    if not (family.weight_decay if weight_decay is None else weight_decay):
        return
    for option in _NOT_TIMES_LR:
        if stated.get(option) is True:
            raise ValueError(
                f"{option}=True takes weight_decay off the weights without the learning rate of "
                f"the group, from which a plan counts: leave {option} out and give "
                "decay='independent', which is the same at every width"
            )
    if family.column not in _WITH_COUPLED_DECAY and read_decoupled(stated, family.name) is False:
        raise ValueError(
            f"{family.name} without decoupled decay adds it to a gradient that is then "
            "preconditioned, and no rule says how it moves with width: give weight_decouple=True, "
            "or weight_decay=0"
        )


def _defaults(optimizer: Any) -> Mapping[str, Any]:
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer.defaults
    if not isinstance(optimizer, type):
        return {}
    parameters = inspect.signature(optimizer).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
