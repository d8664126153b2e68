"""Cases of an axis that never occur, such as one with a typing error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paramz.sweeps.spec.axes import OTHERWISE, Cases, Log2, names_of, same_value
from paramz.sweeps.spec.config import leaves

_SHOWN = 8  # values that a sentence names


def unused_cases(axes: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each case whose value is none of those that its axis depends on.

    Args:
        axes: those of a spec, without contradictions.
        base: what all its configs share.

    >>> from paramz.sweeps.spec.axes import Cases
    >>> momentum = Cases(by="optimizer", cases={"SGD": [0.9]})
    >>> list(unused_cases({"optimizer": ["sgd"], "momentum": momentum}, {}))
    ["axis 'momentum': the case 'SGD' never occurs, for optimizer is 'sgd'; ..."]
    """
    above: dict[str, Any] = {}
    for title, axis in axes.items():
        yield from _unused(title, axis, above, base)
        above[title] = axis


def _unused(
    title: str, axis: Any, above: Mapping[str, Any], base: Mapping[str, Any]
) -> Iterator[str]:
    if not isinstance(axis, Cases):
        return
    values = _values_of(axis.by, above, base)
    for case, inner in axis.cases.items():
        yield from _unused(title, inner, above, base)
        if case == OTHERWISE or not values or any(same_value(case, value) for value in values):
            continue
        shown = list(dict.fromkeys(map(repr, values)))
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        yield (
            f"axis {title!r}: the case {case!r} never occurs, for {axis.by} is "
            f"{', '.join(shown[:_SHOWN])}{more}; a config to which no case applies has no {title}"
        )


def _values_of(name: str, axes: Mapping[str, Any], base: Mapping[str, Any]) -> list[Any]:
    """All values that a name may have; none where a part of an axis's value has that name."""
    set_here = {part: title for title in axes for part in names_of(title)}
    if any(name.startswith(f"{part}.") for part in set_here):
        return []
    own = axes.get(set_here.get(name, ""))
    found = [leaves(base)[name]] if name in leaves(base) and _may_be_absent(own) else []
    if own is not None:
        names = names_of(set_here[name])
        points = list(_points(own))
        found += [row[names.index(name)] for row in points] if len(names) > 1 else points
    return found


def _may_be_absent(axis: Any) -> bool:
    return axis is None or isinstance(axis, Cases)


def _points(axis: Any) -> Iterator[Any]:
    """The values of an axis, of one with cases those of all its cases."""
    if isinstance(axis, Cases):
        for case in axis.cases.values():
            yield from _points(case)
    else:
        yield from axis.values() if isinstance(axis, Log2) else axis
