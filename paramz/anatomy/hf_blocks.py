"""What a Hugging Face config says of each of its blocks, when their number changes.

Lists with an entry for every block are repeated or cut, so that a pattern keeps its period; lists
of the numbers of some blocks likewise. Where something is taken out between blocks, and how many
blocks are of a kind, changes in proportion.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from paramz.anatomy import hf_names
from paramz.anatomy.paths import join


def length(config: Any, field: str) -> int:
    """How many blocks a field speaks of: a number, or a list with an entry for each."""
    value = getattr(config, field)
    return value if isinstance(value, int) else len(value)


def overrides_of(config: Any) -> dict[int, dict[str, Any]]:
    """Fields that some blocks have at values of their own, as the head size of Gemma 4."""
    if not getattr(config, "is_heterogeneous", False):
        return {}
    return {int(number): own for number, own in config.to_dict()["per_layer_config"].items()}


def set_blocks_(
    config: Any, field: str, depth: int, path: str = "", given: Collection[str] = ()
) -> None:
    """Set the number of blocks of one config, and what it says of each of them, in place.

    Args:
        config: the config; those inside it stay.
        field: the field with the number, or the list whose length it is.
        depth: the new number.
        path: that of the config, for messages.
        given: fields that the user sets himself.

    Raises:
        ValueError: the blocks would lose a kind, a number would not be whole, or a list says of
            blocks what paramz does not know. The message names the field to give.
    """
    old, kinds = length(config, field), _kinds(config)
    said = f"{join(path, field)} = {depth}"
    if depth == old:
        return
    others = {*getattr(config, "attribute_map", {}), *given}
    overrides = overrides_of(config) if "per_layer_config" not in given else {}
    for name, value in list(vars(config).items()):
        if name in others or not _is_of(config, name, field):
            continue
        try:
            new = _changed(config, name, value, field, (old, depth))
        except ValueError as error:
            raise ValueError(f"{said}: {error} {_way_out(field, depth, name)}") from None
        if new is not None:
            setattr(config, name, new)
    if isinstance(getattr(config, field), int):
        setattr(config, field, depth)
    if overrides:
        config.per_layer_config = None
        config.per_layer_config = {
            i: dict(overrides[i % old]) for i in range(depth) if i % old in overrides
        }
    if "_out_indices" in vars(config) and len(vars(config).get("stage_names") or ()) == depth + 1:
        config._out_features = [config.stage_names[i] for i in config._out_indices]
    if "attention_types" in vars(config) and "attention_layers" in vars(config):
        config.attention_types = [[list(config.attention_layers), 1]]  # GPT-Neo has both
    for name, now in _kinds(config).items():
        lost = sorted(kinds[name] - now) if name in kinds and name not in given else []
        if lost:
            held = _way_out(field, depth, name)
            if name not in vars(config):
                held = f"the config makes {name} of other fields, which depth={{...}} takes as well"
            raise ValueError(f"{said} leaves no block of kind {', '.join(lost)} ({name}): {held}")


def _changed(config: Any, name: str, value: Any, field: str, depths: tuple[int, int]) -> Any:
    """What a field is at another depth; None if it stays."""
    old, new = depths
    if name in hf_names.COUNTS_OF_BLOCKS and isinstance(value, int) and value > 0:
        return _whole(Fraction(value * new, old), f"{name} = {value}")
    if not isinstance(value, list | tuple) or not value:
        return None
    by_block, by_number = _lists_of(type(config), field)  # type: ignore[arg-type]
    if name == "stage_names" and len(value) == old + 1:  # of backbones: the stem comes first
        changed = [value[0], *(f"stage{i + 1}" for i in range(new))]
    elif hf_names.PLACES.search(name) and _numbers_up_to(value, old):
        first = 0 if name == "_out_indices" else 1  # there 0 is the stem
        places = [Fraction((i + first) * new, old) for i in value]
        changed = [_whole(p, f"{name} = {_short(value)}") - first for p in places]
    elif len(value) == old and (name in by_block or name in hf_names.KINDS):
        changed = [value[i % old] for i in range(new)]
    elif name in by_number or hf_names.NUMBERS_OF_BLOCKS.search(name):
        if not _numbers_up_to(value, old - 1):
            return None
        if len(set(value)) < len(value):  # Mistral Large 4: the block whose keys each one has
            raise ValueError(f"{name} = {_short(value)} is no set of blocks:")
        changed = [i for i in range(new) if i % old in set(value)]
        if not changed:
            raise ValueError(f"{name} = {_short(value)} would be empty:")
    else:
        return None
    return type(value)(changed)


def depth_fields(config: Any) -> list[str]:
    """Fields of one config that hold a number of blocks, or the list of all blocks without one."""
    synonyms = getattr(config, "attribute_map", {})
    own = {name: value for name, value in vars(config).items() if name not in synonyms}
    numbers = [name for name in hf_names.DEPTHS if isinstance(own.get(name), int)]
    # Nemotron-H has a list of kinds and no number.
    return numbers or [n for n in hf_names.KINDS if isinstance(own.get(n), list)][:1]


def _is_of(config: Any, name: str, field: str) -> bool:
    """Whether what a config says of blocks is said of these, where it has two stacks of them."""
    alone = len(depth_fields(config)) < 2
    return alone or ("decoder" in name) == ("decoder" in field)


def _whole(number: Fraction, said: str) -> int:
    if number.denominator != 1 or number < 0:
        raise ValueError(f"{said} would not be whole in proportion ({number}):")
    return int(number)


def _numbers_up_to(values: Sequence[Any], most: int) -> bool:
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    return whole and all(0 <= v <= most for v in values)


@cache
def _lists_of(kind: type, field: str) -> tuple[frozenset[str], frozenset[str]]:
    """Fields that a class of configs fills with an entry, or the number, of each block."""
    try:
        config = kind()
        blocks = length(config, field)
    except Exception:  # any class's own code, which may want arguments
        return frozenset(), frozenset()
    own = {n: v for n, v in vars(config).items() if isinstance(v, list | tuple)}
    full = {name for name, value in own.items() if len(value) == blocks}
    numbers = {name for name in full if list(own[name]) == list(range(blocks))}
    return frozenset(full - numbers), frozenset(numbers)


def _kinds(config: Any) -> dict[str, frozenset[str]]:
    """Kinds of blocks, where a config has them as a list or makes one of other fields."""
    found = {}
    # First what is written in the config, as a message says how to give it.
    for name in sorted(hf_names.KINDS, key=lambda name: name not in vars(config)):
        try:
            kinds = getattr(config, name, None)
        except Exception:  # a property's own code
            continue
        if isinstance(kinds, list | tuple):
            found[name] = frozenset(str(kind) for kind in kinds)
    return found


def _short(values: Sequence[Any]) -> str:
    said = ", ".join(map(str, values[:8]))
    return f"[{said}{', ...' if len(values) > 8 else ''}]"


def _way_out(field: str, depth: int, name: str) -> str:
    number = "" if name == field else f"{field!r}: {depth}, "
    return f"give the field itself, as in depth={{{number}{name!r}: ...}}"
