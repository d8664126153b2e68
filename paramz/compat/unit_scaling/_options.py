"""Options of unit_scaling's interface that have no unit-scaled form."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def not_supported(function: str, **options: tuple[Any, Any]) -> None:
    """Refuse options (given, default) that have no unit-scaled form.

    Raises:
        ValueError: one is not its default.

    >>> not_supported("silu", inplace=(False, False))
    """
    for name, (given, default) in options.items():
        if given is not default and (isinstance(given, Tensor) or given != default):
            raise ValueError(
                f"Support for the '{name}' argument has not been implemented: {function} has no "
                f"unit-scaled form with it. Leave it at {default!r}"
            )
