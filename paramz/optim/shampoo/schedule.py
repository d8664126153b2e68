"""At which steps Shampoo updates its factors and computes their roots."""

from __future__ import annotations

from typing import Any


def due(step: int, every: int) -> bool:
    """Whether the roots are computed at a step: at every so many, and earlier at powers of two.

    Args:
        step: from 1.
        every: a group's ``update_every``.

    >>> [step for step in range(1, 25) if due(step, 10)]
    [1, 2, 4, 8, 10, 20]
    """
    early = step < every and step & (step - 1) == 0
    return early or step % every == 0


def correction(step: int, group: dict[str, Any]) -> float:
    """The factor that corrects a moving average for its start at zero.

    >>> correction(1, {"statistics": "ema", "betas": (0.9, 0.75), "statistics_every": 1,
    ...                "update_every": 1})
    4.0
    """
    if group["statistics"] == "sum":
        return 1.0
    return float(1 / (1 - group["betas"][1] ** gradients_seen(step, group)))


def gradients_seen(step: int, group: dict[str, Any]) -> int:
    """How many gradients of the first steps are in the factors.

    >>> [gradients_seen(step, {"statistics_every": 2, "update_every": 3}) for step in range(1, 8)]
    [1, 2, 3, 4, 4, 5, 5]
    """
    every: int = group["statistics_every"]
    early = min(step, int(group["update_every"]))
    return early - (early - step) // every
