"""The axes of a sweep, that is, the config values that vary, and the product of their values.

Axes are crossed in the order of the file; the last one varies fastest. An axis is one of::

    width: [64, 128, 256]                      # a list
    lr: {log2: [-11, -4]}                      # 2^-11, 2^-10 ... 2^-4; step: 0.5 for half octaves
    "width, depth": [[64, 2], [128, 4]]        # a zip: these names move together
    momentum: {by: optimizer, cases: {sgd: [0, 0.9]}}   # only where optimizer is sgd
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from paramz.sweeps.spec.config import Config, leaves, merged

OTHERWISE = "otherwise"  # the case that applies where no other one does


class Log2(BaseModel):
    """Powers of two from 2^low to 2^high, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    log2: tuple[float, float]
    step: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _rising(self) -> Log2:
        low, high = self.log2
        if high < low:
            raise ValueError(f"the range [{low:g}, {high:g}] falls; write the smaller number first")
        if ((Fraction(high) - Fraction(low)) / Fraction(self.step)).denominator != 1:
            raise ValueError(
                f"{high:g} is not a whole number of steps of {self.step:g} above {low:g}"
            )
        return self

    def values(self) -> list[float]:
        """The points of the range."""
        low, high = self.log2
        return [2.0 ** (low + i * self.step) for i in range(round((high - low) / self.step) + 1)]


class Cases(BaseModel):
    """Values that depend on another axis or on a value of base.

    Attributes:
        by: the name of the other axis or value.
        cases: the axis for each of its values; ``otherwise`` stands for all that are not listed.
            Where no case applies, the config does not have this axis's name at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    by: str
    cases: Annotated[dict[str | bool | int | float, Axis], Field(min_length=1)]

    def at(self, config: Mapping[str, Any]) -> Axis | None:
        """The axis that applies to one config; None if no case does."""
        value = leaves(config).get(self.by)
        return self.cases.get(value, self.cases.get(OTHERWISE))  # type: ignore[arg-type]


def _form(value: Any) -> str | None:
    if isinstance(value, (list, tuple)):
        return "list"
    if isinstance(value, (Log2, Cases)):
        return "log2" if isinstance(value, Log2) else "by"
    if isinstance(value, dict) and len(found := {"log2", "by"} & set(value)) == 1:
        return found.pop()
    return None


Axis = Annotated[
    Annotated[list[JsonValue], Field(min_length=1), Tag("list")]
    | Annotated[Log2, Tag("log2")]
    | Annotated[Cases, Tag("by")],
    Discriminator(
        _form,
        custom_error_type="axis_form",
        custom_error_message=(
            "an axis is a list [a, b], a range {log2: [low, high], step: 1} "
            "or {by: another axis, cases: {value: axis}}"
        ),
    ),
]
Cases.model_rebuild()


def names_of(axis: str) -> list[str]:
    """The config names that an axis sets.

    >>> names_of("lr"), names_of("width, depth")
    (['lr'], ['width', 'depth'])
    """
    return [name.strip() for name in axis.split(",")]


def check_axes(axes: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Refuse axes that contradict each other or the base.

    Raises:
        ValueError: a name is empty or set twice, a row has the wrong length, or an axis depends on
            a name that is not known where it stands. The message says which axis.
    """
    seen: set[str] = set()
    for title, axis in axes.items():
        for name in names_of(title):
            if not name or name in seen:
                raise ValueError(
                    f"axis {title!r}: the name {name!r} is {'set twice' if name else 'empty'}"
                )
        _check_axis(title, axis, seen | set(leaves(base)))
        seen |= set(names_of(title))


def _check_axis(title: str, axis: Any, known: set[str]) -> None:
    width = len(names_of(title))
    if isinstance(axis, Cases):
        if axis.by not in known:
            choices = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"axis {title!r} depends on {axis.by!r}, which is neither in base nor an axis "
                f"above it; known there: {choices}"
            )
        for case in axis.cases.values():
            _check_axis(title, case, known)
    elif width > 1:
        if isinstance(axis, Log2):
            raise ValueError(f"axis {title!r} sets {width} names and needs rows, not a log2 range")
        for row in axis:
            if not isinstance(row, list) or len(row) != width:
                raise ValueError(f"axis {title!r} sets {width} names, but has the row {row!r}")


def expand(base: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[Config]:
    """Every config in the product of some axes, on top of a base; the last axis varies fastest."""
    if not axes:
        yield dict(base)
        return
    (title, axis), *rest = axes.items()
    while isinstance(axis, Cases):
        axis = axis.at(base)
    if axis is None:
        yield from expand(base, dict(rest))
        return
    names = names_of(title)
    for value in axis.values() if isinstance(axis, Log2) else axis:
        row: Any = value if len(names) > 1 else [value]
        yield from expand(merged(base, dict(zip(names, row, strict=True))), dict(rest))
