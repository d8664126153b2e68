"""Schemes that answer the same question, of which a product takes one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_WIDTH = ("sp", "ntp", "mup", "mean-field")
_ONE_OF = (
    ("width", _WIDTH),
    ("depth", ("depth-mup", "completep")),
    ("experts", ("moe", "moe-readout-router", "moe-bottleneck")),
    ("bottlenecks", ("bottleneck-hidden", "bottleneck-readout")),
    ("alignment", ("embed", "full-align", "no-align")),
    ("adapters", ("lora", "rslora")),
)
# Factors on the rules that one scheme has for width; beside another's they would mean nothing.
_FACTORS_ON: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "embed": ("sp",),
        "full-align": ("sp",),
        "no-align": ("sp",),
        "large-vocab": ("mup", "mean-field"),
        "bottleneck-hidden": ("mup", "mean-field"),
        "bottleneck-readout": ("mup", "mean-field"),
    }
)


def require_one_of_each(names: Sequence[str]) -> None:
    """Raise if a product of schemes would apply rules for the same thing twice.

    Args:
        names: of its factors.

    Raises:
        ValueError: one is there twice, with another that it stands in the place of, or with rules
            for width that it is no factor on.

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
    for name, width in itertools.product(names, names):
        wanted = _FACTORS_ON.get(name)
        if wanted is not None and width in _WIDTH and width not in wanted:
            raise ValueError(
                f"{product!r}: {name} is a factor on the rules of {wanted[0]} and says nothing of "
                f"those of {width}. Write '{wanted[0]}+{name}'"
            )


def require_whole(names: Sequence[str]) -> None:
    """Raise if a product of schemes has a factor on rules for width that are not there.

    Args:
        names: of its factors.

    Raises:
        ValueError: it has; the message names the product to write.

    >>> require_whole(["sp", "full-align"])
    """
    for name in names:
        wanted = _FACTORS_ON.get(name)
        if wanted is not None and not set(wanted) & set(names):
            raise ValueError(
                f"{name} is only a factor on the rules of {wanted[0]}, and alone it says neither "
                f"how weights start nor how they learn. Write '{'+'.join([wanted[0], *names])}'"
            )
