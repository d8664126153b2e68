"""How a tensor is initialised: measured on its values, or known from how it is drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import torch

from paramz.anatomy.laws import Law
from paramz.anatomy.tensors import is_trainable_kind, listed
from paramz.plan.row import Init, Row


def measure_init(parameter: torch.Tensor, *, exact: bool = True) -> Init:
    """Measure how a tensor was initialised.

    A complex tensor counts as its real and imaginary parts, of which each has the std: rules are
    ratios, and these are the same for the parts and for the whole.

    Args:
        parameter: the tensor.
        exact: to the last digit what torch's norm in float64 says, and with the mean; False takes a
            tensor on the CPU by parts in float32, which is twenty times faster. Random draws differ
            by 1e-6 then, and what rounds alike in every entry by 1e-5, where draws of a billion
            entries are known to 2e-5.

    >>> measure_init(torch.ones(8)).kind
    'constant'
    """
    values = parameter.detach()
    if not is_trainable_kind(values):
        return Init("constant", 0.0, 0.0, values.numel(), 0.0)
    if values.is_complex():
        values = torch.view_as_real(values)
    size = values.numel()
    if size == 0:
        return Init("constant", 0.0, 0.0, 0, 0.0)
    low, high = (float(x) for x in torch.aminmax(values))
    bound = max(abs(low), abs(high))
    if low == high:
        return Init("constant", 0.0, low, size, bound)
    std = (_norm(values) if exact else _fast_norm(values, bound)) / math.sqrt(size)
    uniform = size >= 128 and _within_uniform(std, bound, size)
    mean = _off_zero(float(values.mean(dtype=torch.float64)), std, size) if exact else 0.0
    return Init("uniform" if uniform else "normal", std, 0.0, size, bound, mean)


def _off_zero(mean: float, std: float, size: int) -> float:
    """A mean that draws around zero do not have: one in a million of them is five errors off."""
    return mean if abs(mean) > max(5.0 / math.sqrt(size), 0.05) * std else 0.0


# Entries of which a sum is taken at once: they stay in a core's cache.
_PART = 65536


def _norm(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))


def _fast_norm(values: torch.Tensor, bound: float) -> float:
    # Beyond these bounds squares, or sums of them, leave what float32 can hold.
    if values.device.type != "cpu" or not 1e-15 < bound < 1e15:
        return _norm(values)
    parts = (part.float() for part in torch.split(values.reshape(-1), _PART))
    return math.sqrt(math.fsum(float(torch.dot(part, part)) for part in parts))


def _within_uniform(std: float, bound: float, size: int) -> bool:
    """Whether numbers may be uniform draws.

    The std of n uniform draws is known to 0.45 / sqrt(n) (three times that is allowed), and as many
    normal draws stay below this bound with a chance under 0.1 %.
    """
    return bound <= (1 + 1.35 / math.sqrt(size)) * math.sqrt(3.0) * std


def known_init(laws: Sequence[tuple[int, Law]], dtype: torch.dtype) -> Init:
    """What `measure_init` would find of a tensor that is drawn by known laws, without its noise.

    Args:
        laws: number of entries and law of each piece of it.
        dtype: the tensor's, in which constants are rounded.

    >>> from paramz.anatomy.laws import normal
    >>> init = known_init([(100, normal(0.0, 0.02))], torch.float32)
    >>> init.kind, init.std, round(init.bound, 3)
    ('normal', 0.02, 0.054)
    """
    size = sum(number for number, _ in laws)
    bound = max(law.largest(number) for number, law in laws)
    (_, first), *more = laws
    if all(law == first for _, law in more):
        if first.kind == "constant":
            value = float(torch.tensor(first.low, dtype=dtype, device="cpu"))
            return Init("constant", 0.0, value, size, abs(value))
        return Init(
            first.kind, first.rms, 0.0, size, bound, _off_zero(first.center, first.rms, size)
        )
    std = math.sqrt(sum(number * law.rms**2 for number, law in laws) / size)
    drawn = {law.kind for _, law in laws}
    mean = _off_zero(sum(number * law.center for number, law in laws) / size, std, size)
    uniform = "normal" not in drawn and _within_uniform(std, bound, size)
    return Init("uniform" if uniform else "normal", std, 0.0, size, bound, mean)


def warn_of_own_values(rows: Iterable[Row]) -> None:
    """Warn of tensors that a plan can only draw around zero, and whose values are not around it.

    Such are those that code computes: a state-space layer's ``A_log``, gates that start open.

    Args:
        rows: the plan's, with what was measured of the base.
    """
    own = [row.name for row in rows if row.base_init is not None and row.base_init.mean]
    if own:
        warnings.warn(
            f"{listed(own, 3)}: init_ draws around zero, and in the base these values are not "
            "around it. Fill them as the model's own code does, such as from another one: "
            f"model.get_parameter({own[0]!r}).data.copy_(built.get_parameter({own[0]!r}))",
            stacklevel=3,  # init_'s caller
        )
