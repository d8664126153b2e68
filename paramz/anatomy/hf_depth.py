"""Hugging Face configs at another depth: numbers of blocks, and lists with an entry for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from paramz.anatomy import names
from paramz.anatomy.hf_sizes import parts
from paramz.anatomy.paths import join


def set_depth_(config: Any, depth: int | Mapping[str, int | Sequence[int]]) -> None:
    """Set the number of blocks of a config and of those inside it, in place.

    Args:
        config: the config.
        depth: the number of the first stack, which the others follow in proportion; or the value of
            every field by name.

    Raises:
        TypeError: the config has no such field, or its stages are a list and depth is a number.
        ValueError: a number would not be whole, or the blocks would lose a kind.
    """
    if isinstance(depth, Mapping):
        for name, value in depth.items():
            owners = [part for _, part in parts(config) if name in vars(part)]
            if not owners:
                raise TypeError(f"{type(config).__name__} has no field {name}")
            for part in owners:
                setattr(part, name, value if isinstance(value, int) else list(value))
        return
    stages = next((p for _, p in parts(config) if isinstance(vars(p).get("depths"), list)), None)
    if stages is not None:
        raise TypeError(
            f"{type(config).__name__} has a number of blocks for each stage, depths = "
            f"{stages.depths}: give depth={{'depths': [...]}}"
        )
    found = [
        (path, part, name)
        for path, part in parts(config)
        for name in (_numbers(part) or _lists(part))
    ]
    if not found:
        present(config, names.CONFIG_DEPTHS, "number of blocks")
    old = _length(*found[0][1:])
    for path, part, name in found:
        new = Fraction(_length(part, name) * depth, old)
        if new.denominator != 1:
            raise ValueError(
                f"{join(path, name)} = {_length(part, name)} would be {new} with "
                f"{join(found[0][0], found[0][2])} = {depth}: give both, as in "
                f"depth={{{found[0][2]!r}: {depth}, {name!r}: ...}}"
            )
        _set_blocks_(part, name, int(new), join(path, name))


def _numbers(config: Any) -> list[str]:
    synonyms = getattr(config, "attribute_map", {})
    own = {name: value for name, value in vars(config).items() if name not in synonyms}
    return [name for name in names.CONFIG_DEPTHS if isinstance(own.get(name), int)]


def _lists(config: Any) -> list[str]:
    """Nemotron-H has a list of kinds and no number."""
    return [n for n in names.CONFIG_KINDS if isinstance(vars(config).get(n), list)][:1]


def _length(config: Any, name: str) -> int:
    value = getattr(config, name)
    return value if isinstance(value, int) else len(value)


def _set_blocks_(config: Any, name: str, depth: int, where: str) -> None:
    old = _length(config, name)
    if isinstance(getattr(config, name), int):
        setattr(config, name, depth)
    for field in names.CONFIG_KINDS:
        kinds = vars(config).get(field)
        if not isinstance(kinds, list) or len(kinds) != old:
            continue
        new = [kinds[i % old] for i in range(depth)]
        lost = sorted({str(kind) for kind in kinds} - {str(kind) for kind in new})
        if lost:
            raise ValueError(
                f"{where} = {depth} leaves no block of kind {', '.join(lost)} ({field} = {kinds}): "
                f"give a list that has all kinds, depth={{{field!r}: [...]}}"
            )
        setattr(config, field, new)


def present(config: Any, fields: tuple[str, ...], what: str) -> list[str]:
    """The fields that a config has itself, of some.

    Raises:
        TypeError: it has none.
    """
    synonyms = getattr(config, "attribute_map", {})
    found = [n for n in fields if n not in synonyms and isinstance(getattr(config, n, None), int)]
    if not found:
        raise TypeError(f"{type(config).__name__} has no {what} (looked for {', '.join(fields)})")
    return found
