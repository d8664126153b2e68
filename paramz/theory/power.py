"""Powers of scale ratios, such as ``fan_out / fan_in``: what every scaling rule is made of.

A scale ratio says how much larger the target is than the base model in one respect: how much wider
a tensor is, how much deeper the model. At the base every ratio is 1, and so is every power.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Scale = Literal[
    "fan_in", "fan_out", "head", "depth", "loops", "experts", "top_k", "rank", "scaling", "entries",
    "code", "uses", "mixed", "thin", "density", "batch", "steps",
]  # fmt: skip

_EXPONENT = re.compile(r"-?\d{1,9}(/0*[1-9]\d{0,8})?")

SCALES: tuple[str, ...] = get_args(Scale)


@dataclass(frozen=True, slots=True, init=False)
class Power:
    """A monomial in scale ratios with exact exponents, such as ``fan_out / fan_in``.

    Calling it on ratios (target / base, dimensionless) gives the number; a ratio that is not named
    counts as 1. Unknown scales raise ``ValueError``.

    >>> p = Power(fan_out=1) / Power(fan_in=Fraction(1, 2))
    >>> print(p, p({"fan_in": 4.0, "fan_out": 4.0}))
    fan_in^-1/2 fan_out 2.0
    >>> Power(fan_in=1) * Power(fan_in=-1) == ONE
    True
    """

    exponents: tuple[tuple[str, Fraction], ...]

    def __init__(self, **exponents: int | Fraction) -> None:
        for scale in exponents:
            if scale not in SCALES:
                raise ValueError(f"unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        pairs = ((s, Fraction(exponents[s])) for s in SCALES if exponents.get(s))
        object.__setattr__(self, "exponents", tuple(pairs))

    def __mul__(self, other: Power) -> Power:
        total = dict(self.exponents)
        for scale, exponent in other.exponents:
            total[scale] = total.get(scale, Fraction(0)) + exponent
        return Power(**total)

    def __pow__(self, k: int | Fraction) -> Power:
        return Power(**{scale: exponent * Fraction(k) for scale, exponent in self.exponents})

    def __truediv__(self, other: Power) -> Power:
        return self * other**-1

    def __rtruediv__(self, one: Literal[1]) -> Power:
        if one != 1:
            raise ValueError(
                f"a Power is a pure monomial: only 1 / power is defined, not {one!r} /"
            )
        return self**-1

    def __call__(self, ratios: Mapping[str, float]) -> float:
        """The number at these ratios."""
        value = 1.0
        for scale, exponent in self.exponents:
            ratio = ratios.get(scale, 1.0)
            if ratio != 1.0:
                value *= float(ratio) ** float(exponent)
        return value

    def __str__(self) -> str:
        return " ".join(s if e == 1 else f"{s}^{e}" for s, e in self.exponents) or "1"

    def to_json(self) -> dict[str, str]:
        """Exponents as strings, exact: ``{"fan_in": "-1/2"}``."""
        return {scale: str(exponent) for scale, exponent in self.exponents}

    @classmethod
    def from_json(cls, exponents: Mapping[str, str]) -> Power:
        """The inverse of `to_json`.

        Raises:
            ValueError: an exponent is no fraction, or a scale is unknown.

        >>> Power.from_json({"fan_in": "-1/2"}) == Power(fan_in=Fraction(-1, 2))
        True
        """
        for text in exponents.values():
            if not _EXPONENT.fullmatch(str(text)):
                raise ValueError(f"exponent {text!r} is no fraction such as -1/2")
        return cls(**{scale: Fraction(text) for scale, text in exponents.items()})


ONE = Power()
