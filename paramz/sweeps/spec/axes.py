"""The axes of a sweep, that is, the config values that vary, and the product of their values.

Axes are crossed in the order of the file; the last one varies fastest. An axis is one of::

    width: [64, 128, 256]                      # a list
    lr: {log2: [-11, -4]}                      # 2^-11, 2^-10 ... 2^-4; step: 0.5 for half octaves
    "width, depth": [[64, 2], [128, 4]]        # a zip: these names move together
    momentum: {by: optimizer, cases: {sgd: [0, 0.9]}}   # only where optimizer is sgd
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    JsonValue,
    Tag,
    model_validator,
)

from paramz.sweeps.spec.config import Config, canonical, encode, leaves, merged, paths

OTHERWISE = "otherwise"  # the case that applies where no other one does
_EXPONENTS = (-1022, 1023)  # those of normal floating-point numbers
_MOST_VALUES = 1_000_000  # of one axis
_MOST_AXES = 100
_DEEPEST = 20  # levels of cases inside cases


class Log2(BaseModel):
    """Powers of two from 2^low to 2^high, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    log2: tuple[FiniteFloat, FiniteFloat]
    step: Annotated[FiniteFloat, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _rising(self) -> Log2:
        low, high = self.log2
        if high < low:
            raise ValueError(f"the range [{low:g}, {high:g}] falls; write the smaller number first")
        if low < _EXPONENTS[0] or high > _EXPONENTS[1]:
            raise ValueError(
                f"the exponents [{low:g}, {high:g}] leave the range of numbers, "
                f"[{_EXPONENTS[0]}, {_EXPONENTS[1]}]"
            )
        if (high - low) / self.step > _MOST_VALUES:
            raise ValueError(f"steps of {self.step:g} make more than {_MOST_VALUES:,} values")
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
        for case, axis in self.cases.items():
            if same_value(case, value):
                return axis
        return self.cases.get(OTHERWISE)


def same_value(case: Any, value: Any) -> bool:
    """Whether a case is that of a value: in Python 1 equals True, and a list has no hash."""
    return bool(case == value) and isinstance(case, bool) == isinstance(value, bool)


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
        ValueError: a name is empty or set twice, an axis hides another one or a value of base, a
            row has the wrong length, a value is not finite, or an axis depends on a name that is
            not known where it stands. The message says which axis.
    """
    if len(axes) > _MOST_AXES:
        raise ValueError(f"{len(axes)} axes; at most {_MOST_AXES} are read")
    known = check_base(base)
    mine: dict[str, str] = {}
    for title, axis in axes.items():
        _check_axis(title, axis, set(leaves(base)) | set(mine), 0)
        for name in names_of(title):
            if not name or name in mine:
                raise ValueError(
                    f"axis {title!r}: the name {name!r} is {'set twice' if name else 'empty'}"
                )
            if not all(part.strip() for part in name.split(".")):
                raise ValueError(f"axis {title!r}: the name {name!r} has an empty part")
            _check_shadows(title, name, mine, known)
            mine[name] = title


def check_base(base: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Where each leaf of the base is, by its dotted name.

    Raises:
        ValueError: two leaves have the same dotted name, or a value is not plain, finite JSON.
    """
    canonical(base)
    _refuse_range(base, "base")
    known: dict[str, tuple[str, ...]] = {}
    for path in paths(base):
        if known.setdefault(name := ".".join(path), path) != path:
            raise ValueError(
                f"two values of base are called {name!r}, once with a dot in its key and once "
                "nested; keep one of them"
            )
    return known


def _check_shadows(
    title: str, name: str, mine: Mapping[str, str], known: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse an axis that would hide another axis, or a value of base that it does not name."""
    for other in mine:
        inner, outer = sorted((name, other), key=len, reverse=True)
        if inner.startswith(outer + "."):
            raise ValueError(
                f"axis {title!r}: {inner!r} is a part of {outer!r}, which is an axis, too; one "
                "would replace the other. Write the whole values of one axis"
            )
    parts = tuple(name.split("."))
    if name in known and known[name] != parts:
        raise ValueError(
            f"axis {title!r}: base has the key {'.'.join(known[name])!r} with a dot in it, which "
            f"is another value than the nested {name!r}; write base nested, too"
        )
    for end in range(1, len(parts)):
        if (above := ".".join(parts[:end])) in known:
            raise ValueError(
                f"axis {title!r}: {above!r} is a single value in base and cannot hold "
                f"{'.'.join(parts[end:])!r}; take it out of base"
            )


def _check_axis(title: str, axis: Any, known: set[str], depth: int) -> None:
    width = len(names_of(title))
    if depth > _DEEPEST:
        raise ValueError(f"axis {title!r}: more than {_DEEPEST} levels of cases")
    if isinstance(axis, Cases):
        if axis.by not in known:
            choices = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"axis {title!r} depends on {axis.by!r}, which is neither in base nor an axis "
                f"above it; known there: {choices}"
            )
        for case in axis.cases.values():
            _check_axis(title, case, known, depth + 1)
    elif isinstance(axis, Log2):
        if width > 1:
            raise ValueError(f"axis {title!r} sets {width} names and needs rows, not a log2 range")
    else:
        for row in axis:
            if width > 1 and (not isinstance(row, list) or len(row) != width):
                raise ValueError(f"axis {title!r} sets {width} names, but has the row {row!r}")
            try:
                canonical(row)
            except ValueError as error:
                raise ValueError(f"axis {title!r}: {error}") from None
            _refuse_range(row, f"axis {title!r}")


def _refuse_range(value: Any, where: str) -> None:
    """Refuse what reads like a whole axis where it would be handed on as one value."""
    if isinstance(value, dict):
        if set(value) <= {"log2", "step"} and "log2" in value or set(value) == {"by", "cases"}:
            raise ValueError(
                f"{where}: {value!r} would be a value as it stands, not a range of values; give it "
                "an axis of its own, or write its values out"
            )
        inner = list(value.values())
    else:
        inner = value if isinstance(value, list) else []
    for each in inner:
        _refuse_range(each, where)


def at_least(axes: Mapping[str, Any]) -> int:
    """A lower bound on the number of distinct configs, found without making them.

    It is exact if no axis depends on another.

    >>> at_least({"seed": list(range(1000)), "width": [1, 1.0, 2]})
    2000
    """
    return math.prod(map(_fewest, axes.values()))


def _fewest(axis: Any) -> int:
    """The number of distinct values of an axis; of one with cases, that of its shortest case."""
    if isinstance(axis, Cases):
        return min(map(_fewest, axis.cases.values())) if OTHERWISE in axis.cases else 1
    values = axis.values() if isinstance(axis, Log2) else axis
    return len({encode(value) for value in values})


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
