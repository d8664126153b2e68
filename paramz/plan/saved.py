"""Reading the rows and numbers of a saved plan, each of them checked.

A plan decides initial values and learning rates, so a number that no plan can have is refused here:
later it would only show as a model that does not train.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from paramz.plan.row import Init, ModuleScale, PartOf, Row, Slice
from paramz.theory.power import SCALES
from paramz.theory.rules import ROLES, Parametrization


def read_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a saved plan by name.

    Raises:
        ValueError: a number in it is NaN, infinite or out of its range.
    """
    scheme = Parametrization.from_json(data["parametrization"])
    rows = tuple(read_row(row) for row in data["rows"])
    twice = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"rows: {twice[0]!r} is there twice")
    if not isinstance(data["folded"], bool):
        raise ValueError(f"folded is {data['folded']!r}, and should be true or false")
    return {
        "parametrization": scheme,
        "rows": rows,
        "attention": tuple(read_scale(scale) for scale in data["attention"]),
        "multipliers": read_factors("multipliers", data["multipliers"]),
        "branches": read_factors("branches", data.get("branches", {})),
        "behind": read_factors("behind", data.get("behind", {})),
        "notes": tuple(data.get("notes", ())),
        "computed": tuple(read_row(row) for row in data.get("computed", ())),
        "folded": data["folded"],
    }


def read_row(data: Mapping[str, Any]) -> Row:
    """A row of a saved plan.

    Raises:
        ValueError: a number is NaN, infinite or out of its range, or a scale or role is unknown;
            the message names the row.
        TypeError: a field is missing or unknown.
    """
    row = dict(data)
    if row["base_init"] is not None:
        row["base_init"] = Init(**row["base_init"])
    if row.get("part") is not None:
        row["part"] = PartOf(**row["part"])
    row["slices"] = [_slice(each) for each in row.get("slices", ())]
    tuples = [f.name for f in fields(Row) if isinstance(row.get(f.name), list)]
    read = Row(**{**row, **{name: tuple(row[name]) for name in tuples}})
    try:
        _check(read)
    except ValueError as error:
        raise ValueError(f"row {read.name!r}: {error}") from None
    return read


def _slice(data: Mapping[str, Any]) -> Slice:
    fields = dict(data)
    if fields["base_init"] is not None:
        fields["base_init"] = Init(**fields["base_init"])
    return Slice(**{**fields, "spans": tuple(tuple(span) for span in fields["spans"])})


def read_scale(data: Mapping[str, Any]) -> ModuleScale:
    """A factor in a module's own code, of a saved plan.

    Raises:
        ValueError: a factor is not finite, or its kind unknown; the message names the module.
        TypeError: a field is missing or unknown.
    """
    scale = ModuleScale(**data)
    if scale.kind not in (kinds := get_args(get_type_hints(ModuleScale)["kind"])):
        raise ValueError(f"attention {scale.module!r}: kind {scale.kind!r} is none of {kinds}")
    for name in ("plain", "value"):
        number(f"attention {scale.module!r}: {name}", getattr(scale, name))
    return scale


def read_factors(name: str, data: Mapping[str, Any]) -> dict[str, float]:
    """Factors by module path, of a saved plan.

    Raises:
        ValueError: a factor is not finite; the message names the module.
    """
    return {path: number(f"{name} {path!r}", factor) for path, factor in data.items()}


def number(name: str, value: Any, *, least: float = -math.inf, above: bool = False) -> Any:
    """A finite number that is at least `least`, or above it.

    Raises:
        ValueError: it is none; the message gives its name and value.

    >>> number("ratios.fan_in", 4.0, least=0, above=True)
    4.0
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < least or (above and value == least):
        limit = "" if least == -math.inf else f" {'above' if above else 'from'} {least:g}"
        raise ValueError(f"{name} is {value!r}, and should be a finite number{limit}")
    return value


def loads(text: str) -> Any:
    """The content of a JSON text, which NaN and infinities are no part of.

    Raises:
        ValueError: the text is not JSON, or nested too deeply to be a plan.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number that JSON or a plan can hold")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check(row: Row) -> None:
    for name in ("shape", "base_shape"):
        for size in getattr(row, name):
            if not isinstance(number(name, size, least=0), int):
                raise ValueError(f"{name} has the size {size!r}, which is not whole")
    if len(row.shape) != len(row.base_shape):
        raise ValueError(f"shape {row.shape} and base_shape {row.base_shape} differ in length")
    if row.role not in ROLES:
        raise ValueError(f"unknown role {row.role!r}; the roles are {', '.join(ROLES)}")
    for scale, ratio in row.ratios.items():
        if scale not in SCALES:
            raise ValueError(f"unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
        number(f"ratios.{scale}", ratio, least=0, above=True)
    if row.density is not None:
        number("density", row.density, least=0, above=True)
    if row.factor is not None:
        number("factor", row.factor)
    if any(axis not in range(len(row.shape)) for axis in row.growing):
        raise ValueError(f"growing names the axes {row.growing} of {len(row.shape)}")
    if row.base_init is not None:
        _check_init(row.base_init)
    for part in row.slices:
        _check_slice(part, row)


def _check_init(init: Init) -> None:
    if init.kind not in (kinds := get_args(get_type_hints(Init)["kind"])):
        raise ValueError(f"base_init.kind {init.kind!r} is none of {kinds}")
    for name in ("std", "bound", "size"):
        number(f"base_init.{name}", getattr(init, name), least=0)
    for name in ("value", "mean"):
        number(f"base_init.{name}", getattr(init, name))


def _check_slice(part: Slice, row: Row) -> None:
    if not isinstance(part.axis, int) or not 0 <= part.axis < len(row.shape):
        raise ValueError(f"a slice of axis {part.axis!r}, of a tensor of {len(row.shape)} axes")
    size, base_size = row.shape[part.axis], row.base_shape[part.axis]
    for span in part.spans:
        whole = len(span) == 3 and all(type(n) is int for n in span)
        fits = whole and 0 <= span[0] < span[1] <= size and 0 <= span[2] <= base_size
        if not fits or span[2] + span[1] - span[0] > base_size:
            raise ValueError(f"a slice of the rows {span!r} of {size}, and {base_size} in the base")
    lengths = sum(stop - start for start, stop, _ in part.spans)
    if part.spans and lengths != part.size:
        raise ValueError(f"a slice of {part.size!r} rows with spans of {lengths}")
    if not isinstance(number("slices.size", part.size, least=0), int):
        raise ValueError(f"a slice of {part.size!r} rows, which is not whole")
    _check(row.of(part))
