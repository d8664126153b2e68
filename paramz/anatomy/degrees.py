"""What becomes of a factor on what went in: by which power of it an operation's result changes.

A factor c on a branch's last map is one on the branch if what is added changes by c^1. Behind a
norm, of whatever length, it changes by c^0, behind a tanh or a softmax by no power of c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# What bounds its result, or adds to it, keeps no factor; what is nearly a line on either side of
# zero (gelu, silu) nearly does.
_BOUNDED = frozenset(
    """sigmoid tanh hardtanh hardsigmoid softplus exp expm1 exp2 log log1p log2 log10 logsumexp
    _softmax _log_softmax _safe_softmax atan atan2 asinh erf erfc sin cos tan sinh cosh
    log_sigmoid_forward logit round floor ceil cumprod prod""".split()
)
NORMS = frozenset(
    """native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm _fused_rms_norm
    _native_batch_norm_legit _native_batch_norm_legit_no_training""".split()
)
# A factor that is positive changes nothing.
_FIXED = NORMS | {"sign", "sgn", "argmax", "argmin"}
_PRODUCTS = frozenset({"mul", "mm", "bmm", "mv", "dot", "addcmul"})
_ROOTS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "square": 2.0, "var": 2.0}
# From here on a bound is a guard against overflow.
_FAR = 1e3


def degree_of(name: str, args: Sequence[Any], degrees: Sequence[float | None]) -> float:
    """The power of a factor by which the result of an operation changes; nan if it is none.

    Args:
        name: of the operation, as torch's dispatcher calls it.
        args: its arguments by place.
        degrees: those of its tensors in order; None for what does not change.

    >>> degree_of("mul", (), [1.0, -1.0]), degree_of("pow", (None, 2), [1.0])
    (0.0, 2.0)
    >>> degree_of("tanh", (), [1.0])
    nan
    """
    own, name = [each for each in degrees if each is not None], name.removesuffix("_")
    if not own or name in _FIXED:
        return 0.0
    if name in _BOUNDED or (name == "clamp" and _within(args)):
        return math.nan if any(own) else 0.0
    if name in _ROOTS:
        return own[0] * _ROOTS[name]
    if name == "pow":
        return _power(args, own)
    if name == "div":  # by a tensor, or by a number
        below = degrees[1] if len(degrees) > 1 else None
        return (degrees[0] or 0.0) - (below or 0.0)
    if name in _PRODUCTS or name == "baddbmm":
        return sum(own[-2:])
    return own[0] if len(set(own)) == 1 else math.nan


def _power(args: Sequence[Any], own: Sequence[float]) -> float:
    """Of a number to a power of something, or something to the power of something: none."""
    exponent = args[1]
    if isinstance(exponent, int | float) and not isinstance(args[0], int | float):
        return own[0] * exponent
    return math.nan if any(own) else 0.0


def _within(args: Sequence[Any]) -> bool:
    """Whether a clamp has two bounds that data meets."""
    bounds = [x for x in args[1:3] if isinstance(x, int | float)]
    return len(bounds) == 2 and max(map(abs, bounds)) < _FAR
