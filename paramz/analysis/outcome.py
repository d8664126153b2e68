"""The answers that a judgement can give, the same for coordinate checks and for transfer."""

from __future__ import annotations

from typing import Any, Literal, get_args

# "undecided": the numbers reach to both sides of the tolerance, so more runs must decide.
Outcome = Literal["pass", "fail", "undecided"]


def require_outcome(value: Any) -> Outcome:
    """The value itself, if it is an outcome.

    Raises:
        ValueError: it is none; the message lists what there is.

    >>> require_outcome("pass")
    'pass'
    """
    for outcome in get_args(Outcome):
        if value == outcome:
            return outcome  # type: ignore[no-any-return]
    raise ValueError(
        f"{value!r} is no outcome of a verdict; there are {', '.join(get_args(Outcome))}"
    )
