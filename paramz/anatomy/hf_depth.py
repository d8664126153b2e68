"""Hugging Face configs at another depth: numbers of blocks, and lists with an entry for each."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from paramz.anatomy import hf_names
from paramz.anatomy.hf_blocks import depth_fields, length, set_blocks_
from paramz.anatomy.hf_sizes import parts
from paramz.anatomy.paths import join


def set_depth_(config: Any, depth: int | Mapping[str, int | Sequence[int]]) -> None:
    """Set the number of blocks of a config and of those inside it, in place.

    Args:
        config: the config.
        depth: the number of the first stack, which the others follow in proportion; or the value of
            every field by name, or by path in nested configs, as ``vision_config.layer_types``.

    Raises:
        TypeError: the config has no such field, or its stages are a list and depth is a number.
        ValueError: a number would not be whole, or the blocks would lose a kind, as in
            `paramz.anatomy.hf_blocks.set_blocks_`; or the config's own class refuses or changes
            what comes of it.
    """
    before = copy.deepcopy(config)
    if isinstance(depth, Mapping):
        _set_each_(config, depth)
    else:
        _set_all_(config, depth)
    for (path, old), (_, new) in zip(parts(before), parts(config), strict=True):
        _require_read_back(path, old, new)


def _set_all_(config: Any, depth: int) -> None:
    stages = [
        (name, vars(part)[name])
        for _, part in parts(config)
        for name in hf_names.STAGES
        if isinstance(vars(part).get(name), list | tuple)
    ]
    if stages:
        name, numbers = stages[0]
        raise TypeError(
            f"{type(config).__name__} has a number of blocks for each stage, {name} = {numbers}: "
            f"give depth={{{name!r}: [...]}}"
        )
    found = [(path, part, name) for path, part in parts(config) for name in depth_fields(part)]
    if not found:
        present(config, hf_names.DEPTHS, "number of blocks")
    first_path, first, first_name = found[0]
    old = length(first, first_name)
    new_numbers = []
    for path, part, name in found:
        new = Fraction(length(part, name) * depth, old)
        where = join(path, name)
        if new.denominator != 1:
            said = join(first_path, first_name)
            raise ValueError(
                f"{where} = {length(part, name)} would be {new} with {said} = {depth}: give both, "
                f"as in depth={{{said!r}: {depth}, {where!r}: ...}}"
            )
        new_numbers.append(int(new))
    for (path, part, name), number in zip(found, new_numbers, strict=True):
        set_blocks_(part, name, number, path)


def _require_read_back(path: str, before: Any, config: Any) -> None:
    """Refuse what a config's own class would make another config of, as a saved model's.

    Gemma 4 makes its last block one of global attention whatever the list says.
    """
    kind, told = type(config).__name__, join(path, "layer_types")
    try:
        kept = vars(type(before).from_dict(before.to_dict()))
    except Exception:  # any class's own code, which may not like the config as it was, either
        return
    try:
        found = vars(type(config).from_dict(config.to_dict()))
    except Exception as error:
        raise ValueError(
            f"{kind} refuses itself at this depth ({str(error).strip()}): take another number of "
            f"blocks, or give its fields as well, as in depth={{..., {told!r}: [...]}}"
        ) from None
    for name, value in vars(config).items():
        was = vars(before).get(name)
        if name[0] == "_" or hasattr(value, "to_dict"):
            continue
        if value != was and kept.get(name) == was and found.get(name) != value:
            raise ValueError(
                f"{join(path, name)} = {reprlib.repr(value)} at this depth, and a saved {kind} "
                f"would be read as {reprlib.repr(found.get(name))}: take another number of blocks, "
                f"or give the field as well, as in depth={{..., {join(path, name)!r}: ...}}"
            )


def _set_each_(config: Any, depth: Mapping[str, int | Sequence[int]]) -> None:
    """Set what is given, and let all that a config says of its blocks follow their numbers."""
    owners = {
        name: [(p, part) for p, part in parts(config) if name in _names_in(p, part)]
        for name in depth
    }
    stacks = []
    for name, found in owners.items():
        if not found:
            raise TypeError(f"{type(config).__name__} has no field {name}")
        field, value = name.rpartition(".")[2], depth[name]
        for path, part in found:
            if not isinstance(value, int):
                setattr(part, field, list(value))
            elif field in depth_fields(part):
                given = {n.rpartition(".")[2] for n, of in owners.items() if (path, part) in of}
                stacks.append((part, field, value, path, given))
            else:
                setattr(part, field, value)
    for part, field, blocks, path, given in stacks:
        set_blocks_(part, field, blocks, path, given)


def _names_in(path: str, part: Any) -> set[str]:
    return {*vars(part), *(join(path, name) for name in vars(part))}


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
