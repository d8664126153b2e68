"""The options of a group of Shampoo's, and which values they may have."""

from __future__ import annotations

from typing import Any

from paramz.optim.shampoo.roots import ROOTS

CHOICES: dict[str, tuple[str | None, ...]] = {
    "statistics": ("ema", "sum"),
    "graft": (None, "sgd", "rmsprop", "adam"),
    "root": tuple(ROOTS),
}


def require_valid(group: dict[str, Any]) -> None:
    """Refuse a group with an option that is out of range.

    Raises:
        ValueError: an option is out of range; the message names it and says what it may be.
    """
    if not group["eps"] > 0:
        raise ValueError(
            f"eps={group['eps']!r} must be over 0: factors have no inverse where no gradient was"
        )
    for name in ("lr", "weight_decay", "relative_eps"):
        if not group[name] >= 0:
            raise ValueError(f"{name}={group[name]!r} must not be negative")
    for name in ("block_size", "update_every", "statistics_every"):
        if not (isinstance(group[name], int) and group[name] >= 1):
            raise ValueError(f"{name}={group[name]!r} must be an integer from 1")
    for name, known in CHOICES.items():
        if group[name] not in known:
            raise ValueError(f"{name}={group[name]!r} is none of {', '.join(map(repr, known))}")
    betas = group["betas"]
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas!r}: both from 0 up to, but not, 1")
    _require_exponents(group)


def exponents(group: dict[str, Any]) -> tuple[float, float]:
    """The exponents of the left and of the right side.

    >>> exponents({"exponent": 0.25}), exponents({"exponent": (0, 0.5)})
    ((0.25, 0.25), (0.0, 0.5))
    """
    given = group["exponent"]
    left, right = given if isinstance(given, tuple | list) else (given, given)
    return float(left), float(right)


def _require_exponents(group: dict[str, Any]) -> None:
    both = exponents(group)
    if not all(0 <= each <= 1 for each in both) or not any(both):
        raise ValueError(f"exponent={group['exponent']!r}: two numbers from 0 to 1, not both 0")
    fractions = all(abs(round(1 / each) * each - 1) <= 1e-9 for each in both if each)
    if group["root"] == "newton" and not fractions:
        raise ValueError(
            f"exponent={group['exponent']!r} with root='newton': it takes 1/p with an integer p, "
            "such as 1/4 and 1/2; use root='eigh'"
        )
