"""Which sizes in a Hugging Face config follow its width, in nested configs, too, and which stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from paramz.anatomy import hf_names
from paramz.anatomy.hf_blocks import overrides_of
from paramz.anatomy.paths import join

# Integers that are sizes by their name, so that a reader wants to know that they stay.
_SIZE = re.compile(
    r"(^|_)(dims?|sizes?|width|(low)?ranks?|heads|hidden|latents?|units|headdim|channels?|filters"
    r"|d?ff)(_|$)"
    r"|^d_|_d_"
)
_NO_SIZE = re.compile(
    r"vocab|^(num|in|out)_channels|mask_input|image|patch|kernel|chunk|window|type_|batch|block_size|stride|length|position|state|conv(?!_dim|_channels)"
    r"|tokens?_|_token|cache|resolution|crop"
)


@dataclass(frozen=True)
class Sizes:
    """How the sizes of a config move with its width.

    Attributes:
        heads: their number or their size moves.
        kv_heads: the number of key-value heads moves with that of heads, or stays.
        also: further fields that move with the width, by name.
        keep: fields that stay, by name.
    """

    heads: Literal["count", "size"] = "count"
    kv_heads: Literal["scale", "keep"] = "scale"
    also: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def moving(self) -> set[str]:
        """Names of the fields that move."""
        fields = {*hf_names.WIDTHS, *self.also}
        if self.heads == "count":
            fields |= {*hf_names.HEADS}
            fields |= {*hf_names.KV_HEADS} if self.kv_heads == "scale" else set()
        else:
            fields |= {*hf_names.HEAD_SIZES}
        return fields - {*self.keep}


def parts(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A config and all configs inside it, with their paths, each once."""
    seen = set()
    stack = [(path, config)]
    while stack:
        where, part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield where, part
        own = getattr(part, "__dict__", {})
        inner = [(join(where, n), value) for n, value in own.items() if hasattr(value, "to_dict")]
        stack += reversed(inner)


def main_width(config: Any) -> int:
    """The width of a config: its own, or that of its text, its decoder or its first part.

    Raises:
        TypeError: there is none.
    """
    own = getattr(config, "hidden_size", None)
    inner = {path: part for path, part in parts(config) if path}
    text = text_of(config)
    # PaliGemma's own hidden_size is 2048 whatever the size of its text model.
    if text is not None:
        return int(text.hidden_size)
    if isinstance(own, int):
        return own
    order = [path for path in hf_names.MAIN_CONFIGS if path in inner]
    for path in [*order, *inner]:
        width = getattr(inner[path], "hidden_size", None)
        if isinstance(width, int):
            return width
    raise TypeError(f"{type(config).__name__} has no hidden_size: pass a factory as base=")


def text_of(config: Any) -> Any:
    """The config of the text, if one with a width is inside: the outermost one, then the first."""
    found = [
        (path.count("."), hf_names.TEXT_CONFIGS.index(name), part)
        for path, part in parts(config)
        if (name := path.rpartition(".")[2]) in hf_names.TEXT_CONFIGS
        and isinstance(getattr(part, "hidden_size", None), int)
    ]
    return min(found, key=lambda each: each[:2])[2] if found else None


def set_width_(config: Any, width: int, sizes: Sizes) -> None:
    """Set the width of a config and of all configs inside it, in place.

    Args:
        config: the config.
        width: the new width; everything moves in proportion.
        sizes: what moves.

    Raises:
        TypeError: the config has no ``hidden_size``, or a field that is named is nowhere.
        ValueError: a size would not be whole at this width, and the message lists widths that work;
            or key-value heads that stay would not divide those of queries.
    """
    old_width = main_width(config)
    moves = list(_moving(config, sizes))
    there = {name for _, part in parts(config) for name in vars(part)}
    unknown = [name for name in (*sizes.also, *sizes.keep) if name not in there]
    if unknown:
        raise TypeError(f"{type(config).__name__} has no field {', '.join(unknown)}")
    flat = [n for _, _, _, values in moves for n in values]
    for path, _, name, values in moves:
        for old in values:
            if old * width % old_width:
                fits = [w for w in range(1, old_width) if _all_whole(flat, w, old_width)]
                raise ValueError(
                    f"{join(path, name)} = {old} at width {old_width} would be "
                    f"{Fraction(old * width, old_width)} at width {width}. Widths that keep every "
                    f"size whole: {fits[:8] or 'none below it'}{_hint(name, width, sizes)}"
                )
    if sizes.heads == "count" and sizes.kv_heads == "keep":
        _require_shared(config, Fraction(width, old_width))
    apart = []
    for path, part in parts(config):
        moving = {n for where, _, n, _ in moves if where == path}
        apart.append((part, _overrides(part, moving, Fraction(width, old_width), path)))
    for _, part, name, values in moves:
        new = [old * width // old_width for old in values]
        held = _value(part, name)
        setattr(part, name, type(held)(new) if isinstance(held, list | tuple) else new[0])
    for part, overrides in apart:  # after the others: what is equal to them is dropped
        if overrides:
            part.per_layer_config = overrides


def _require_shared(config: Any, growth: Fraction) -> None:
    """Refuse key-value heads that stay where fewer heads of queries would share them."""
    for path, part in parts(config):
        heads = _value(part, "num_attention_heads")
        for name in hf_names.KV_HEADS if isinstance(heads, int) else ():
            shared = vars(part).get(name) or 1
            # Where Falcon has one for all, its number counts for nothing.
            if not isinstance(shared, int) or heads % shared or getattr(part, "multi_query", 0):
                continue
            if heads * growth % shared:
                raise ValueError(
                    f"kv_heads='keep': {heads * growth} heads of queries cannot share "
                    f"{join(path, name)} = {shared}. Take a multiple of "
                    f"{Fraction(main_width(config) * shared, heads)} as width, or let their number "
                    "move with that of heads: kv_heads='scale'"
                )


def _overrides(
    config: Any, moving: set[str], growth: Fraction, path: str
) -> dict[int, dict[str, Any]]:
    """Sizes that some blocks have to themselves (Gemma 4's heads) at another width."""
    overrides = overrides_of(config)
    for own in overrides.values():
        for name in moving & own.keys():
            new = own[name] * growth
            if new.denominator != 1:
                raise ValueError(
                    f"{join(path, name)} = {own[name]} of some blocks would be {new} at this width"
                )
            own[name] = int(new)
    return overrides


def _value(config: Any, name: str) -> Any:
    """A field's value, where some blocks have another one, too."""
    held = vars(config).get(name)
    return getattr(config, name, None) if held is None else held


def _moving(config: Any, sizes: Sizes) -> Iterator[tuple[str, Any, str, list[int]]]:
    """Path, config, name and values of every field that moves; of synonyms the real one."""
    fields = sizes.moving()
    width = main_width(config)
    widths = {getattr(part, "hidden_size", None) for _, part in parts(config)}
    to_text = {getattr(text_of(config), "hidden_size", None)} - {None}
    if any(hasattr(part, n) for _, part in parts(config) for n in hf_names.CONTRASTS):
        to_text = set()
    for path, part in parts(config):
        synonyms = getattr(part, "attribute_map", {})
        # Sorted, so that of several sizes that are not whole every process names the same one.
        # What a config calls by another name is the real field of that.
        own = fields | {synonyms[name] for name in fields if name in synonyms}
        if sizes.heads == "size":
            head = _value(part, "head_dim")
            own |= {n for n in hf_names.HEAD_SIZES_IF_EQUAL if _value(part, n) == head}
        others = [n for n in vars(part) if hf_names.WIDTH_OF_A_PART.search(n)]
        own |= _shares(part)
        for name in sorted({*own, *others, *hf_names.WIDTHS_IF_EQUAL, hf_names.PROJECTION}):
            value = _value(part, name)
            values = _integers(value)
            if name in synonyms or name in sizes.keep or not values or _is_made(part, name):
                continue
            # An embedding as wide as the model has no projection, and another one would have it.
            equal = {*values} == {getattr(part, "hidden_size", width)}
            if name == hf_names.PROJECTION:
                equal = value in to_text
            if name in own or equal or (name in others and value in widths):
                yield path, part, name, values


def _shares(part: Any) -> set[str]:
    """Sizes of embeddings that are the width together, as LayoutLM's of boxes."""
    shares = {n: getattr(part, n, None) for n in hf_names.WIDTH_IN_SHARES}
    if not all(isinstance(size, int) for size in shares.values()):
        return set()
    whole = sum(size * hf_names.WIDTH_IN_SHARES[n] for n, size in shares.items() if size)
    return {*shares} if whole == getattr(part, "hidden_size", None) else set()


def _is_made(part: Any, name: str) -> bool:
    """Whether a config's own code makes a field of others, as Falcon the size of its heads."""
    made = getattr(type(part), name, None)
    return isinstance(made, property) and made.fset is None


def _integers(value: Any) -> list[int]:
    """The whole numbers of a field, one or several; none if it holds anything else."""
    values = value if isinstance(value, list | tuple) else [value]
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in values)
    return list(values) if whole else []


def shared_heads(config: Any, width: int) -> dict[str, tuple[int, int]]:
    """Numbers of key-value heads that several query heads share and that move with the width.

    Args:
        config: of the model.
        width: another one.

    Returns:
        field -> the number now, and at that width.
    """
    found = {}
    for path, part, name, values in _moving(config, Sizes()):
        if name not in hf_names.KV_HEADS or len(values) > 1:
            continue
        queries = _value(part, "num_attention_heads")
        if isinstance(queries, int) and values[0] < queries:
            now = values[0]
            found[join(path, name)] = now, now * width // main_width(config)
    return {name: (now, then) for name, (now, then) in found.items() if then != now}


def _hint(name: str, width: int, sizes: Sizes) -> str:
    if name in hf_names.KV_HEADS:
        return (
            ". Or let the number of key-value heads stay: "
            f"base=paramz.hf.config_factory(model, kv_heads='keep'), base_width={width}"
        )
    if sizes.heads == "count":
        return (
            ". Or let the heads grow instead of their number: "
            f"base=paramz.hf.config_factory(model, heads='size'), base_width={width}"
        )
    return ""


def _all_whole(sizes: Sequence[int], width: int, old_width: int) -> bool:
    return all(size * width % old_width == 0 for size in sizes)


def fields_left(config: Any, sizes: Sizes) -> list[str]:
    """Sizes that stay when the width changes, each as ``path = value``.

    Args:
        config: the config at any width.
        sizes: what moves.
    """
    moving = {(path, name) for path, _, name, _ in _moving(config, sizes)}
    by_head = hf_names.HEAD_SIZES if sizes.heads == "count" else hf_names.HEADS
    found = []
    for path, part in parts(config):
        synonyms = getattr(part, "attribute_map", {})
        for name, value in vars(part).items():
            values = _integers(value)
            if max(values, default=0) < 2 or (path, name) in moving:
                continue
            sized = _SIZE.search(name) and not _NO_SIZE.search(name)
            known = (*by_head, *hf_names.EXPERTS, *hf_names.DEPTHS)
            if sized and name not in synonyms and name not in known:
                found.append(f"{join(path, name)} = {value}")
    return found
