"""Schemes that answer the same question, of which a product takes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_ONE_OF = (
    ("width", ("ntp", "mup", "mean-field")),
    ("depth", ("depth-mup", "completep")),
    ("experts", ("moe", "moe-readout-router", "moe-bottleneck")),
    ("bottlenecks", ("bottleneck-hidden", "bottleneck-readout")),
    ("alignment", ("embed", "full-align", "no-align")),
)


def require_one_of_each(names: Sequence[str]) -> None:
    """Raise if a product of schemes would apply rules for the same thing twice.

    Args:
        names: of its factors.

    Raises:
        ValueError: one is there twice, or with another that it stands in the place of.

    >>> require_one_of_each(["mup", "completep", "moe"])
    """
    product = "+".join(names)
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(
            f"{product!r} has {twice} twice, so its rules would apply twice: name it once"
        )
    for what, alternatives in _ONE_OF:
        found = [name for name in names if name in alternatives]
        if len(found) > 1:
            raise ValueError(
                f"{product!r}: {' and '.join(found)} are different rules for {what}, and a product "
                f"would apply all of them. Keep one of {', '.join(alternatives)}"
            )
