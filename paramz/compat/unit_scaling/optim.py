"""u-muP's learning rates and decay for torch's optimizers: one group for all tensors of one rule.

The rules are those of `paramz.U_MUP`; which one a parameter has follows from its type, shape and
depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from paramz.compat.unit_scaling.parameter import ParameterData, has_parameter_data

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "lr_scale_for_depth",
    "lr_scale_func_adam",
    "lr_scale_func_sgd",
    "scaled_parameters",
]

LrScale = Callable[[ParameterData], float]


def lr_scale_for_depth(param: ParameterData) -> float:
    """The factor for depth, 1/sqrt(depth); 1 outside of a stack.

    >>> from paramz.compat.unit_scaling import Parameter
    >>> lr_scale_for_depth(Parameter(torch.zeros(2), "weight", mup_scaling_depth=4))
    0.5
    """
    return 1.0 if param.mup_scaling_depth is None else param.mup_scaling_depth**-0.5


def _fan_in(shape: torch.Size) -> int:
    """The fan_in of a linear map or convolution; for one axis, its size."""
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)


def lr_scale_func_adam(param: ParameterData) -> float:
    """The factor for Adam and AdamW: 1/sqrt(fan_in) for weights, times that for depth.

    Raises:
        ValueError: the parameter's type is none of `MupType`.

    >>> from paramz.compat.unit_scaling import Parameter
    >>> lr_scale_func_adam(Parameter(torch.zeros(4, 16), "weight"))
    0.25
    """
    return lr_scale_for_depth(param) * _by_type(
        param, weight=_fan_in(param.shape) ** -0.5, entrywise=1.0
    )


def lr_scale_func_sgd(readout_constraint: str | None) -> LrScale:
    """The factor for SGD, by the ``constraint`` of the model's readout.

    Without a constraint gradients have unit scale, and the rule is Adam's. With
    ``"to_output_scale"`` they are smaller by 1/fan_in of the readout. The learning rate of weights
    makes up for that by a factor of fan_in, and that of biases and gains by their size.

    Raises:
        ValueError: there is no rule for this constraint.

    >>> from paramz.compat.unit_scaling import Parameter
    >>> lr_scale_func_sgd("to_output_scale")(Parameter(torch.zeros(4, 16), "weight"))
    4.0
    """
    if readout_constraint is None:
        return lr_scale_func_adam
    if readout_constraint != "to_output_scale":
        raise ValueError(
            f"readout_constraint={readout_constraint!r} has no rule for SGD: there are None and "
            "'to_output_scale'"
        )

    def rule(param: ParameterData) -> float:
        return lr_scale_for_depth(param) * _by_type(
            param, weight=_fan_in(param.shape) ** 0.5, entrywise=(*param.shape, 1)[0]
        )

    return rule


def _by_type(param: ParameterData, *, weight: float, entrywise: float) -> float:
    factors = {"weight": weight, "bias": entrywise, "norm": entrywise, "output": 1.0}
    if param.mup_type not in factors:
        raise ValueError(f"mup_type={param.mup_type!r} has no rule; there are {', '.join(factors)}")
    return factors[param.mup_type]


def scaled_parameters(
    params: Iterable[Tensor] | Iterable[dict[str, Any]],
    lr_scale_func: LrScale,
    lr: float | Tensor | None = None,
    weight_decay: float = 0,
    independent_weight_decay: bool = True,
    allow_non_unit_scaling_params: bool = False,
    *,
    per_tensor: bool = False,
) -> list[dict[str, Any]]:
    """Parameter groups with the learning rate and decay of each tensor, for any optimizer.

    Tensors with equal values share a group; if groups are given, only within each of them.

    Args:
        params: parameters, or groups of them.
        lr_scale_func: a parameter's factor on the learning rate, such as `lr_scale_func_adam`.
        lr: learning rate where a group has none.
        weight_decay: where a group has none.
        independent_weight_decay: weight_decay is what each step takes away at the peak learning
            rate, whatever that rate is.
        allow_non_unit_scaling_params: let parameters without a type keep the learning rate as it
            is, instead of refusing them.
        per_tensor: one group per tensor, as in unit_scaling, whose optimizers' state then loads.

    Raises:
        ValueError: a group has no learning rate, or a parameter no type.
        TypeError: an entry is neither a parameter nor a group.

    >>> from paramz.compat.unit_scaling import Linear
    >>> layers = [Linear(16, 16), Linear(16, 4), Linear(4, 4)]
    >>> params = [layer.weight for layer in layers]
    >>> [(len(g["params"]), g["lr"]) for g in scaled_parameters(params, lr_scale_func_adam, lr=1.0)]
    [(2, 0.25), (1, 0.5)]
    """
    merged: dict[tuple[float, ...], dict[str, Any]] = {}
    for number, entry in enumerate(params):
        group, tensors, owner = _read(entry, number)
        base_lr, base_decay = group.pop("lr", lr), group.pop("weight_decay", weight_decay)
        if base_lr is None:
            raise ValueError(
                "scaled_parameters() requires lr, unless all groups passed to it have their own"
            )
        for parameter in tensors:
            own_lr = base_lr * _factor(parameter, lr_scale_func, allow_non_unit_scaling_params)
            decay = base_decay
            if independent_weight_decay and decay and float(own_lr):
                decay = decay / float(own_lr)
            own = {"params": [], "lr": own_lr, "weight_decay": decay, **group}
            key = (len(merged),) if per_tensor else (owner, float(own_lr), float(decay))
            merged.setdefault(key, own)["params"].append(parameter)
    return list(merged.values())


def _read(entry: Any, number: int) -> tuple[dict[str, Any], list[Tensor], int]:
    """The options and tensors of an entry, and the number of its group; -1 for bare parameters."""
    if isinstance(entry, Tensor):
        return {}, [entry], -1
    if not isinstance(entry, Mapping):
        raise TypeError(
            f"params[{number}] is a {type(entry).__name__}, not a parameter or a dict of one group "
            "(names are not taken: pass model.parameters())"
        )
    tensors = entry["params"]
    options = {name: value for name, value in entry.items() if name != "params"}
    return options, [tensors] if isinstance(tensors, Tensor) else list(tensors), number


def _factor(parameter: Tensor, rule: LrScale, allowed: bool) -> float:
    if has_parameter_data(parameter):
        return rule(parameter)
    if not allowed:
        raise ValueError(
            f"Non-unit-scaling parameter (no mup_type), shape {tuple(parameter.shape)}. Build it "
            "from this package's layers, or as Parameter(data, mup_type=...) again if its module "
            "was moved by to_empty(), loaded with assign=True or sharded; or pass "
            "allow_non_unit_scaling_params=True"
        )
    return 1.0


def _options(groups: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's options, with foreach on CUDA.

    That is torch's default there, but not for subclasses of nn.Parameter.
    """
    devices = {p.device.type for group in groups for p in group["params"]}
    if devices == {"cuda"} and not {"foreach", "fused"} & set(given):
        return {**given, "foreach": True}
    return dict(given)


class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` with u-muP's learning rates.

    Args:
        params: parameters or groups of them.
        lr: learning rate; the further arguments of ``torch.optim.SGD`` follow by position or name.
        weight_decay, independent_weight_decay, allow_non_unit_scaling_params, per_tensor: see
            `scaled_parameters`.
        readout_constraint: the ``constraint`` of the model's `LinearReadout`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *args: Any,
        weight_decay: float = 0,
        independent_weight_decay: bool = True,
        allow_non_unit_scaling_params: bool = False,
        readout_constraint: str | None = None,
        per_tensor: bool = False,
        **kwargs: Any,
    ) -> None:
        groups = scaled_parameters(
            params, lr_scale_func_sgd(readout_constraint), lr, weight_decay,
            independent_weight_decay, allow_non_unit_scaling_params, per_tensor=per_tensor,
        )  # fmt: skip
        super().__init__(groups, lr, *args, **_options(groups, kwargs))


class _WithAdamsRates(torch.optim.Adam):
    """The common part of Adam and AdamW, which torch has as a subclass of Adam."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *args: Any,
        weight_decay: float = 0,
        independent_weight_decay: bool = True,
        allow_non_unit_scaling_params: bool = False,
        per_tensor: bool = False,
        **kwargs: Any,
    ) -> None:
        groups = scaled_parameters(
            params, lr_scale_func_adam, lr, weight_decay,
            independent_weight_decay, allow_non_unit_scaling_params, per_tensor=per_tensor,
        )  # fmt: skip
        super().__init__(groups, lr, *args, **_options(groups, kwargs))


class Adam(_WithAdamsRates):
    """``torch.optim.Adam`` with u-muP's learning rates.

    Args:
        params: parameters or groups of them.
        lr: learning rate; the further arguments of ``torch.optim.Adam`` follow by position or name.
        weight_decay, independent_weight_decay, allow_non_unit_scaling_params, per_tensor: see
            `scaled_parameters`.
    """


class AdamW(_WithAdamsRates, torch.optim.AdamW):
    """``torch.optim.AdamW`` with u-muP's learning rates.

    Args:
        params: parameters or groups of them.
        lr: learning rate; the further arguments of ``torch.optim.AdamW`` follow by position or
            name.
        weight_decay, independent_weight_decay, allow_non_unit_scaling_params, per_tensor: see
            `scaled_parameters`.
    """
