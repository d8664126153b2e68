"""Hugging Face configs at another width, depth or number of experts.

Imports nothing of transformers: a config is a bag of attributes, and these are copied and changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from typing import Any, Literal

from torch import nn

from paramz.anatomy import names


def scaled_config(
    config: Any,
    width: int,
    *,
    heads: Literal["count", "size"] = "count",
    depth: int | None = None,
    experts: int | None = None,
) -> Any:
    """A copy of a Hugging Face config at another width; the vocabulary stays.

    Args:
        config: a ``PretrainedConfig`` with a ``hidden_size`` (or a synonym that maps to it).
        width: the new ``hidden_size``; feed-forward sizes follow in proportion.
        heads: ``"count"`` keeps the head size and scales the number of heads and of key-value heads
            (grouped-query groups stay as they are); ``"size"`` keeps the numbers and scales the
            head size.
        depth: the new number of blocks, in encoder and decoder each; None keeps it. A list of the
            kinds of the blocks is cut or repeated.
        experts: the new number of experts; the share of them that sees each token stays. None keeps
            the number.

    Raises:
        TypeError: the config has no ``hidden_size``, or no number of blocks or experts.
        ValueError: a size would not be whole at this width; the message lists widths that work.
    """
    scaled = copy.deepcopy(config)
    _set_width(scaled, width, heads)
    if depth is not None:
        _set_depth(scaled, depth)
    if experts is not None:
        _set_experts(scaled, experts)
    return scaled


def _set_width(config: Any, width: int, heads: Literal["count", "size"]) -> None:
    old_width = getattr(config, "hidden_size", None)
    if not isinstance(old_width, int):
        raise TypeError(f"{type(config).__name__} has no hidden_size: pass a factory as base=")
    by_count = names.CONFIG_HEADS + names.CONFIG_KV_HEADS
    fields = names.CONFIG_WIDTHS + (by_count if heads == "count" else names.CONFIG_HEAD_SIZES)
    own = set(fields) - set(getattr(config, "attribute_map", {}))
    sizes = {n: size for n in fields if isinstance(size := getattr(config, n, None), int)}
    for name, old in sizes.items():
        if name not in own:
            continue  # a synonym of a field that is set under its own name
        if old * width % old_width:
            fits = [w for w in range(1, old_width) if _all_whole(sizes.values(), w, old_width)]
            raise ValueError(
                f"{name} = {old} at width {old_width} would be {Fraction(old * width, old_width)} "
                f"at width {width}. Widths that keep every size whole: "
                f"{fits[:8] or 'none below it'}"
                + (
                    ". Or let the heads grow instead of their number: "
                    f"base=paramz.hf.config_factory(model, heads='size'), base_width={width}"
                    if heads == "count"
                    else ""
                )
            )
    for name, old in sizes.items():
        if name in own:
            setattr(config, name, old * width // old_width)


def _all_whole(sizes: Iterable[int], width: int, old_width: int) -> bool:
    return all(size * width % old_width == 0 for size in sizes)


def _set_depth(config: Any, depth: int) -> None:
    for name in _present(config, names.CONFIG_DEPTHS, "number of blocks"):
        setattr(config, name, depth)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        config.layer_types = [kinds[i % len(kinds)] for i in range(depth)]


def _set_experts(config: Any, experts: int) -> None:
    name = _present(config, names.CONFIG_EXPERTS, "number of experts")[0]
    top_k = Fraction(config.num_experts_per_tok * experts, getattr(config, name))
    if top_k.denominator != 1:
        raise ValueError(
            f"{name} = {experts} would let {top_k} experts see a token, where "
            f"{config.num_experts_per_tok} of {getattr(config, name)} do now"
        )
    setattr(config, name, experts)
    config.num_experts_per_tok = int(top_k)


def _present(config: Any, fields: tuple[str, ...], what: str) -> list[str]:
    synonyms = getattr(config, "attribute_map", {})
    found = [n for n in fields if n not in synonyms and isinstance(getattr(config, n, None), int)]
    if not found:
        raise TypeError(f"{type(config).__name__} has no {what} (looked for {', '.join(fields)})")
    return found


def config_factory(
    model: nn.Module,
    *,
    heads: Literal["count", "size"] = "count",
    depth: int | None = None,
    experts: int | None = None,
) -> Callable[[int], nn.Module]:
    """A factory ``width -> model`` from a Hugging Face model's own config.

    A model with PEFT adapters gets the same adapters at every width. With ``depth`` or ``experts``
    it builds the base of a model that has more of them, as in
    ``parametrize_(model, "mup+completep", base=config_factory(model, depth=4), base_width=256)``.

    Raises:
        TypeError: the model has no config.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise TypeError(
            f"base is a width, but {type(model).__name__} has no Hugging Face config to scale: "
            "pass a factory as base= together with base_width=."
        )
    adapters = getattr(model, "peft_config", None)
    wrapped = adapters is not None and hasattr(model, "get_base_model")
    kind: Callable[[Any], nn.Module] = type(model.get_base_model() if wrapped else model)  # type: ignore[operator]
    scaled = partial(scaled_config, config, heads=heads, depth=depth, experts=experts)
    if not wrapped:
        return lambda width: kind(scaled(width))
    return lambda width: _with_adapters(kind(scaled(width)), adapters)


def _with_adapters(model: nn.Module, adapters: Any) -> nn.Module:
    """The same adapters on another model, as PEFT puts them there."""
    from peft import get_peft_model

    (name, first), *more = copy.deepcopy(dict(adapters)).items()
    adapted: Any = get_peft_model(model, first, adapter_name=name)
    for name, config in more:
        adapted.add_adapter(name, config)
    made: nn.Module = adapted
    return made
