"""One factor for an operation's output and its gradients, chosen from the ideal ones of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

__all__ = [
    "amean",
    "apply_constraint",
    "gmean",
    "hmean",
    "to_grad_input_scale",
    "to_left_grad_scale",
    "to_output_scale",
    "to_right_grad_scale",
]


def gmean(*scales: float) -> float:
    """The geometric mean.

    >>> gmean(2.0, 8.0)
    4.0
    """
    return math.pow(math.prod(scales), 1 / len(scales))


def hmean(*scales: float) -> float:
    """The harmonic mean, that of Xavier's initialization.

    >>> hmean(1.0, 3.0)
    1.5
    """
    return 1 / (sum(1 / s for s in scales) / len(scales))


def amean(*scales: float) -> float:
    """The arithmetic mean.

    >>> amean(1.0, 3.0)
    2.0
    """
    return sum(scales) / len(scales)


def to_output_scale(output_scale: float, *grad_input_scale: float) -> float:
    """The output's factor.

    >>> to_output_scale(2.0, 3.0)
    2.0
    """
    return output_scale


def to_grad_input_scale(output_scale: float, grad_input_scale: float) -> float:
    """The input gradient's factor.

    >>> to_grad_input_scale(2.0, 3.0)
    3.0
    """
    return grad_input_scale


def to_left_grad_scale(
    output_scale: float, left_grad_scale: float, right_grad_scale: float
) -> float:
    """The left input's gradient's factor.

    >>> to_left_grad_scale(2.0, 3.0, 4.0)
    3.0
    """
    return left_grad_scale


def to_right_grad_scale(
    output_scale: float, left_grad_scale: float, right_grad_scale: float
) -> float:
    """The right input's gradient's factor.

    >>> to_right_grad_scale(2.0, 3.0, 4.0)
    4.0
    """
    return right_grad_scale


_CONSTRAINTS: Mapping[str, Callable[..., float]] = {
    f.__name__: f
    for f in (
        gmean,
        hmean,
        amean,
        to_output_scale,
        to_grad_input_scale,
        to_left_grad_scale,
        to_right_grad_scale,
    )
}


def apply_constraint(constraint_name: str | None, *scales: float) -> tuple[float, ...]:
    """The factors after a constraint: all equal, or as they were for None.

    Args:
        constraint_name: a function of this module, by name; None or ``""`` for none.
        scales: the output's factor, then those of the gradients.

    Raises:
        ValueError: there is no such constraint.

    >>> apply_constraint("amean", 1.0, 3.0)
    (2.0, 2.0)
    """
    if not constraint_name:
        return scales
    if constraint_name not in _CONSTRAINTS:
        raise ValueError(
            f"Constraint: {constraint_name} is not a valid constraint; there are "
            f"{', '.join(_CONSTRAINTS)}, and None"
        )
    return (_CONSTRAINTS[constraint_name](*scales),) * len(scales)
