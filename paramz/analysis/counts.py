"""Counts of parameters, tokens and FLOP as they are spoken of: 215M, 1.4B, 3e+21."""

from __future__ import annotations

import math

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
# From here on a number is a count of something, below it may be a width.
LEAST = 1e5
# Beyond it there is no letter that everybody knows.
_MOST = 1e15


def count_label(value: float) -> str:
    """A count with three digits and a letter; small numbers and huge ones as they are.

    Args:
        value: the count.

    Returns:
        its label.

    >>> [count_label(v) for v in (4096, 215e6, 1.4e9, 3e11, 2.5e21)]
    ['4096', '215M', '1.4B', '300B', '2.5e+21']
    """
    if not (math.isfinite(value) and LEAST <= abs(value) < _MOST):
        return f"{value:g}"
    value = float(f"{value:.3g}")
    unit, letter = next(u for u in _UNITS if abs(value) >= u[0])
    return f"{value / unit:.3g}{letter}"
