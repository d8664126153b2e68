"""Hugging Face configs at another width. Imports nothing of transformers: it edits the config."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from paramz.apply.checkpoints import PLAN_FILE

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
_DEPTHS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_decoder_layers",
)  # fmt: skip
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


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
        depth: the new number of blocks, in encoder and decoder each; as it was if left out. A list
            of the kinds of the blocks is cut or repeated.
        experts: the new number of experts, of which as large a part sees each token as before; as
            it was if left out.

    Raises:
        TypeError: the config has no ``hidden_size``, or no number of blocks or experts.
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
    if depth is not None:
        for name in _present(config, _DEPTHS, "number of blocks"):
            setattr(scaled, name, depth)
        kinds = getattr(config, "layer_types", None)
        if kinds:
            scaled.layer_types = [kinds[i % len(kinds)] for i in range(depth)]
    if experts is not None:
        name = _present(config, _EXPERTS, "number of experts")[0]
        top_k = Fraction(config.num_experts_per_tok * experts, getattr(config, name))
        if top_k.denominator != 1:
            raise ValueError(
                f"{name} = {experts} would let {top_k} experts see a token, where "
                f"{config.num_experts_per_tok} of {getattr(config, name)} do now"
            )
        setattr(scaled, name, experts)
        scaled.num_experts_per_tok = int(top_k)
    return scaled


def _present(config: Any, names: tuple[str, ...], what: str) -> list[str]:
    synonyms = getattr(config, "attribute_map", {})
    found = [n for n in names if n not in synonyms and isinstance(getattr(config, n, None), int)]
    if not found:
        raise TypeError(f"{type(config).__name__} has no {what} (looked for {', '.join(names)})")
    return found


def _not_whole(
    config: Any, name: str, old: int, width: int, old_width: int, names: list[str], heads: str
) -> str:
    sizes = [v for n in names if isinstance(v := getattr(config, n, None), int)]
    fits = [w for w in range(1, old_width) if all(v * w % old_width == 0 for v in sizes)]
    other = (
        ". Or let the heads grow instead of their number: "
        f"base=paramz.apply.hf.config_factory(model, heads='size'), base_width={width}"
        if heads == "count"
        else ""
    )
    return (
        f"{name} = {old} at width {old_width} would be {Fraction(old * width, old_width)} at width "
        f"{width}. Widths that keep every size whole: {fits[:8] or 'none below it'}{other}"
    )


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


def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """``model.save_pretrained`` with the plan beside the weights, and its name in the config.

    Args:
        model: a Hugging Face model under a plan.
        folder: where to.
        **options: for ``model.save_pretrained``.

    Raises:
        ValueError: the model is under no plan.
    """
    from paramz.apply.parametrize import plan_of

    plan = plan_of(model)
    if plan is None:
        raise ValueError("this model is under no plan: model.save_pretrained is all it needs")
    model.config.paramz = f"{plan.parametrization.name}, plan in {PLAN_FILE}"
    model.save_pretrained(folder, **options)
    plan.save(Path(folder) / PLAN_FILE)


def from_pretrained(kind: Any, folder: str | os.PathLike[str], **options: Any) -> nn.Module:
    """``kind.from_pretrained`` with the plan that `save_pretrained` left beside the weights.

    Args:
        kind: the model's class, or an Auto class.
        folder: from where.
        **options: for ``kind.from_pretrained``.

    Raises:
        ValueError: there is no plan in the folder.
    """
    from paramz.apply.adopt import restore_
    from paramz.plan.plan import Plan

    file = Path(folder) / PLAN_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no {PLAN_FILE}: it was not saved by paramz.hf")
    model: nn.Module = kind.from_pretrained(folder, **options)
    restore_(model, Plan.load(file))
    return model


# Schedules of transformers that end at an absolute learning rate.
_ABSOLUTE = (
    "polynomial",
    "cosine_with_min_lr",
    "reduce_lr_on_plateau",
    "cosine_warmup_with_min_lr",
)


def check_arguments(arguments: Any) -> None:
    """Warn of `TrainingArguments` whose meaning moves with width.

    Args:
        arguments: ``transformers.TrainingArguments``: max_grad_norm and lr_scheduler_type are read.
    """
    if (arguments.max_grad_norm or 0) > 0:
        warnings.warn(
            f"max_grad_norm={arguments.max_grad_norm} clips by the plain global norm, which the "
            "readout dominates and which grows with width. Set max_grad_norm=0 and pass "
            "callbacks=[paramz.hf.Clip(plan, max_norm)].",
            stacklevel=2,
        )
    kind = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    if kind in _ABSOLUTE:
        warnings.warn(
            f"lr_scheduler_type={kind!r} ends at an absolute learning rate, or at one relative to "
            "optimizer.defaults['lr'], which is not the plan's. Use a schedule that multiplies, "
            "such as 'cosine' or 'linear', or check it with paramz.check_schedule.",
            stacklevel=2,
        )
