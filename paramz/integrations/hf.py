"""Hugging Face configs at another width. Imports nothing of transformers: it edits the config."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

from torch import nn

# Attributes that grow in proportion to the width, under the names that model families use.
_WIDTHS = (
    "hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim",
    "intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim",
    "moe_intermediate_size", "shared_expert_intermediate_size",
)  # fmt: skip
_HEADS = (
    "num_attention_heads", "n_head", "num_heads", "n_heads",
    "encoder_attention_heads", "decoder_attention_heads",
)  # fmt: skip
_KV_HEADS = ("num_key_value_heads",)
_HEAD_SIZES = ("head_dim", "d_kv")


def scaled_config(config: Any, width: int, *, heads: Literal["count", "size"] = "count") -> Any:
    """A copy of a Hugging Face config at another width; depth and vocabulary stay.

    Args:
        config: a ``PretrainedConfig`` with a ``hidden_size`` (or a synonym that maps to it).
        width: the new ``hidden_size``; feed-forward sizes follow in proportion.
        heads: ``"count"`` keeps the head size and scales the number of heads and of key-value heads
            (grouped-query groups stay as they are); ``"size"`` keeps the numbers and scales the
            head size.

    Raises:
        TypeError: the config has no ``hidden_size``.
        ValueError: a size would not be whole at this width; the message lists widths that work.
    """
    old_width = getattr(config, "hidden_size", None)
    if not isinstance(old_width, int):
        raise TypeError(f"{type(config).__name__} has no hidden_size: pass a factory as base=")
    ratio = Fraction(width, old_width)
    scaled_names = [*_WIDTHS, *(_HEADS + _KV_HEADS if heads == "count" else _HEAD_SIZES)]
    scaled = copy.deepcopy(config)
    synonyms = getattr(config, "attribute_map", {})
    for name in scaled_names:
        old = getattr(config, name, None)
        if name in synonyms or not isinstance(old, int):
            continue
        new = old * ratio
        if new.denominator != 1:
            raise ValueError(_not_whole(config, name, old, width, old_width, scaled_names, heads))
        setattr(scaled, name, int(new))
    return scaled


def _not_whole(
    config: Any, name: str, old: int, width: int, old_width: int, names: list[str], heads: str
) -> str:
    sizes = [v for n in names if isinstance(v := getattr(config, n, None), int)]
    fits = [w for w in range(1, old_width) if all(v * w % old_width == 0 for v in sizes)]
    other = (
        ". Or let the heads grow instead of their number: "
        f"base=paramz.integrations.hf.config_factory(model, heads='size'), base_width={width}"
        if heads == "count"
        else ""
    )
    return (
        f"{name} = {old} at width {old_width} would be {Fraction(old * width, old_width)} at width "
        f"{width}. Widths that keep every size whole: {fits[:8] or 'none below it'}{other}"
    )


def config_factory(
    model: nn.Module, *, heads: Literal["count", "size"] = "count"
) -> Callable[[int], nn.Module]:
    """A factory ``width -> model`` from a Hugging Face model's own config.

    Raises:
        TypeError: the model has no config.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise TypeError(
            f"base is a width, but {type(model).__name__} has no Hugging Face config to scale: "
            "pass a factory as base= together with base_width=."
        )
    kind: Callable[[Any], nn.Module] = type(model)
    return lambda width: kind(scaled_config(config, width, heads=heads))
