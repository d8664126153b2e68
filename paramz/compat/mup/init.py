"""Initial values: the functions of ``torch.nn.init``, with a std that follows muP's rules in width.

Each makes the same random draws as torch's function, in the same order. Their std is what torch's
function gives at the base shape, times the rule: fan_in^-1/2 for a hidden matrix, 1 for all others
(TP-V, table 8).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import init as _torch
from torch.nn.init import calculate_gain as calculate_gain

from paramz.compat.mup.rows import RULES
from paramz.compat.mup.tensors import row_of


def constant_std_init_(tensor: Tensor, sampler_: Callable[..., Any]) -> Tensor:
    """Draw with ``sampler_(tensor, scale=...)``, whose own std must not depend on width.

    Raises:
        ValueError: the tensor's base shapes are not set.
    """
    sampler_(tensor, scale=_factor(tensor))
    return tensor


def uniform_(tensor: Tensor, a: float = 0, b: float = 1) -> Tensor:
    """U(a, b), with bounds that do not depend on width.

    Raises:
        ValueError: the base shapes are not set, or a hidden matrix would have a mean.
    """
    if a != -b:
        _refuse_mean(tensor, f"uniform_(a={a}, b={b})")
    return constant_std_init_(tensor, lambda t, scale: _torch.uniform_(t, a * scale, b * scale))


def normal_(tensor: Tensor, mean: float = 0, std: float = 1) -> Tensor:
    """N(mean, std^2), with numbers that do not depend on width.

    Raises:
        ValueError: the base shapes are not set, or a hidden matrix would have a mean.

    >>> from paramz.compat.mup import set_base_shapes
    >>> model = set_base_shapes(torch.nn.Linear(64, 64), torch.nn.Linear(16, 16))
    >>> bool(abs(normal_(model.weight, std=0.2).std() - 0.1) < 0.01)
    True
    """
    if mean != 0:
        _refuse_mean(tensor, f"normal_(mean={mean})")
    return constant_std_init_(tensor, lambda t, scale: _torch.normal_(t, mean * scale, std * scale))


def trunc_normal_(
    tensor: Tensor, mean: float = 0, std: float = 1, a: float = -2, b: float = 2
) -> Tensor:
    """N(mean, std^2) within (a, b), with numbers that do not depend on width.

    Raises:
        ValueError: the base shapes are not set, or a hidden matrix would have a mean.
    """
    if mean != 0 or a != -b:
        _refuse_mean(tensor, f"trunc_normal_(mean={mean}, a={a}, b={b})")
    return constant_std_init_(
        tensor,
        lambda t, scale: _torch.trunc_normal_(t, mean * scale, std * scale, a * scale, b * scale),
    )


def ones_(tensor: Tensor) -> Tensor:
    """All ones.

    Raises:
        ValueError: the base shapes are not set, or the tensor is a hidden matrix.
    """
    _refuse_mean(tensor, "ones_")
    return _torch.ones_(tensor)


def eye_(tensor: Tensor) -> Tensor:
    """Ones on the diagonal.

    Raises:
        ValueError: the base shapes are not set, or the tensor is a hidden matrix.
    """
    _refuse_mean(tensor, "eye_")
    return _torch.eye_(tensor)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot's uniform law with its std at the base, times the rule.

    Raises:
        ValueError: the base shapes are not set.
    """
    bound = math.sqrt(3.0) * _xavier(tensor, gain)
    return _torch.uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot's normal law with its std at the base, times the rule.

    Raises:
        ValueError: the base shapes are not set.
    """
    return _torch.normal_(tensor, 0.0, _xavier(tensor, gain))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He's uniform law with its std at the base, times the rule.

    Raises:
        ValueError: the base shapes are not set.
    """
    if _empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming(tensor, a, mode, nonlinearity)
    return _torch.uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He's normal law with its std at the base, times the rule.

    Raises:
        ValueError: the base shapes are not set.
    """
    if _empty(tensor):
        return tensor
    return _torch.normal_(tensor, 0.0, _kaiming(tensor, a, mode, nonlinearity))


def _factor(tensor: Tensor) -> float:
    """Std at the target / std at the base."""
    row = row_of(tensor)
    return RULES.weight(row).init_std(row.ratios)


def _xavier(tensor: Tensor, gain: float) -> float:
    sums = [sum(_torch._calculate_fan_in_and_fan_out(t)) for t in (tensor, _base(tensor))]
    return gain * math.sqrt(2.0 / float(sums[0])) * _adjusted(tensor, *sums)


def _kaiming(tensor: Tensor, a: float, mode: Any, nonlinearity: Any) -> float:
    fans = [_torch._calculate_correct_fan(t, mode) for t in (tensor, _base(tensor))]
    return calculate_gain(nonlinearity, a) / math.sqrt(fans[0]) * _adjusted(tensor, *fans)


def _base(tensor: Tensor) -> Tensor:
    """A tensor without values, of the shape that this one has at the base."""
    return torch.empty(row_of(tensor).base_shape, device="meta")


def _adjusted(tensor: Tensor, fan: int, base_fan: int) -> float:
    """The rule's factor on torch's std, which falls as fan^-1/2; exactly 1 where they agree."""
    row = row_of(tensor)
    return math.sqrt(fan / base_fan * (RULES.weight(row).init_std ** 2)(row.ratios))


def _refuse_mean(tensor: Tensor, what: str) -> None:
    """Refuse to draw a hidden matrix from a law whose mean is not 0."""
    row = row_of(tensor)
    if row.role == "hidden":
        raise ValueError(
            f"{what} on {row.name} {row.shape}: its fan_in and fan_out grow with width, and the "
            "outputs of a hidden matrix whose mean is not 0 grow with fan_in. Use a law around 0."
        )


def _empty(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
    return 0 in tensor.shape
