"""By how much a tensor exceeds one with entries of size 1, where code divided it by its length.

A vector of length one has entries of size d^-1/2, so ``normalize(x) * sqrt(d)`` is a norm, and
``normalize(x)`` alone is a norm times a number that falls with width. Many write norms in parts.
What is divided by the sum of its sizes, or a softmax over d entries, has entries of size 1/d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

TIMES = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__"})
DIVIDED = frozenset({"div", "div_", "true_divide", "divide", "__truediv__"})
_LENGTHS = frozenset({"norm", "linalg_norm", "linalg_vector_norm"})
_SIZES = frozenset({"abs", "__abs__", "absolute"})
ENTRIES = frozenset({"squares", "sizes"})
_POWERS = frozenset({"pow", "__pow__", "square", "sqrt", "rsqrt", "reciprocal"})


@dataclass(frozen=True, slots=True)
class Length:
    """What is known of a tensor's length, or of a tensor that is one.

    Attributes:
        kind: "unit" for vectors divided by their length; "length" for a length, "square" for its
            square, "inverse" for one over it; "squares" and "sizes" for the squares of entries and
            their absolute values.
        value: the number by which it exceeds what a root mean square in place of the length gives.
        gain: a parameter has multiplied it, which may start at the number that is missing.
    """

    kind: str
    value: float = 1.0
    gain: bool = False

    def times(self, number: float) -> Length:
        """The same of a tensor times a number."""
        return replace(self, value=self.value * number)

    @property
    def unit(self) -> bool:
        """Whether these are vectors divided by their length of which ``value`` tells the size.

        A gain of which nothing is known tells it only if no number is missing, as ScaleNorm's g is
        sqrt(d) itself: ``normalize(x) * g * sqrt(d)`` is a norm, and of ``normalize(x) * g`` none
        can say.
        """
        return self.kind == "unit" and not (self.gain and not math.isclose(self.value, 1))


def length_of(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: Sequence[tuple[Tensor, Length | None]],
    out: Any,
) -> Length | None:
    """What is known of the length of what an operation makes; None if nothing is.

    Args:
        name: of the operation, as torch's functions are called.
        args: its arguments by place.
        kwargs: those by keyword.
        tensors: the tensors among them, with what is known of each.
        out: what it makes.

    >>> import torch
    >>> x = torch.ones(3, 16)
    >>> length_of("normalize", (x,), {"dim": -1}, [(x, None)], x)
    Length(kind='unit', value=0.25, gain=False)
    """
    if not tensors:
        return None
    first, known = tensors[0]
    if name == "normalize":
        order = args[1] if len(args) > 1 else kwargs.get("p", 2.0)
        axis = args[2] if len(args) > 2 else kwargs.get("dim", 1)
        return Length("unit", first.shape[axis] ** (-1 / order))
    if name in _LENGTHS:
        order = _order(args, kwargs)
        order = 2 if order in (None, "fro") else order
        known_order = isinstance(order, int | float) and order > 0
        return Length("length", _summed(first, out) ** (1 / order)) if known_order else None
    if name == "softmax":
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        return Length("unit", 1 / first.shape[axis]) if isinstance(axis, int) else None
    if name in TIMES | DIVIDED and len(tensors) > 1:
        return _of_two(name, tensors)
    if len(tensors) > 1:
        return None
    if known is None:
        if name in _SIZES:
            return Length("sizes")
        return Length("squares") if _exponent(name, args) == 2 else None
    if known.kind in ENTRIES:
        kind = "square" if known.kind == "squares" else "length"
        return Length(kind, _summed(first, out)) if name == "sum" else None
    return _of_one(name, args, known)


def _of_one(name: str, args: Sequence[Any], known: Length) -> Length | None:
    number = next((float(x) for x in args if isinstance(x, int | float)), None)
    power = _exponent(name, args)
    if name == "__rdiv__" and number is not None and known.kind in ("length", "inverse"):
        return Length("inverse" if known.kind == "length" else "length", number / known.value)
    if power is not None:
        kinds = {("square", 0.5): "length", ("square", -0.5): "inverse", ("length", -1): "inverse"}
        kind = kinds.get((known.kind, power))
        return Length(kind, known.value**power) if kind else None
    if number is not None and name in TIMES:
        return known.times(number)
    if number and name in DIVIDED:
        return known.times(1 / number)
    return known


def _of_two(name: str, tensors: Sequence[tuple[Tensor, Length | None]]) -> Length | None:
    (one, left), (other, right) = tensors[:2]
    if one is other:
        return Length("squares")
    if name in DIVIDED:
        if right is None:
            return left
        return Length("unit", 1 / right.value) if right.kind == "length" and not left else None
    kinds = {each.kind for each in (left, right) if each is not None}
    found = next((each for each in (left, right) if each is not None), None)
    if found is None or (left and right) or not kinds <= {"inverse", "unit"}:
        return None
    gain = any(isinstance(each, nn.Parameter) for each in (one, other))
    return Length("unit", found.value, gain=gain or found.gain)


def _exponent(name: str, args: Sequence[Any]) -> float | None:
    """The power that an operation takes a tensor to."""
    fixed = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
    if name in fixed or name not in _POWERS:
        return fixed.get(name)
    return next((float(x) for x in args[1:] if isinstance(x, int | float)), None)


def _order(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Of which norm a length is: that of torch's functions is called p or ord."""
    order = kwargs.get("p", kwargs.get("ord"))
    return args[1] if len(args) > 1 else order


def _summed(tensor: Tensor, out: Any) -> float:
    """Over how many entries a sum runs."""
    return float(tensor.numel() / max(out.numel(), 1))
