"""Hugging Face configs at another width, depth or number of experts.

Imports nothing of transformers: a config is a bag of attributes, and these are copied and changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

from torch import nn

from paramz.anatomy import hf_names
from paramz.anatomy.hf_depth import present, set_depth_
from paramz.anatomy.hf_sizes import (
    Sizes,
    fields_left,
    parts,
    set_width_,
    shared_heads,
    text_of,
)
from paramz.anatomy.ranks import config_at_rank, with_adapters

# Where the config of a model under a plan says that a plain model with its weights is another one
# (paramz.plan.on_config), and the key of what paramz writes there.
FACTORS_FIELD = "quantization_config"
OURS = "paramz"


def is_marked(config: Mapping[str, Any]) -> bool:
    """Whether a config, as a mapping, says that its model has factors which no config holds.

    >>> is_marked({"hidden_size": 64}), is_marked({"quantization_config": {"bits": 4}})
    (False, False)
    """
    found = config.get(FACTORS_FIELD)
    return isinstance(found, dict) and OURS in found


def scaled_config(
    config: Any,
    width: int,
    *,
    heads: Literal["count", "size"] = "count",
    kv_heads: Literal["scale", "keep"] = "scale",
    depth: int | Mapping[str, int | Sequence[int]] | None = None,
    experts: int | None = None,
    also: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
) -> Any:
    """A copy of a Hugging Face config at another width; the vocabulary stays.

    Configs inside it (of text, vision, encoder, decoder, attention) move in the same proportion.

    Args:
        config: a ``PretrainedConfig`` with a ``hidden_size`` (or a synonym that maps to it), its
            own or that of its text config.
        width: the new ``hidden_size``; feed-forward sizes and those of mixers follow in proportion.
        heads: ``"count"`` keeps the head size and scales the number of heads and of key-value heads
            (grouped-query groups stay as they are); ``"size"`` keeps the numbers and scales the
            head size.
        kv_heads: ``"keep"`` keeps the number of key-value heads while that of heads is scaled.
        depth: the new number of blocks; None keeps it. Where encoder and decoder differ, it is the
            first one's and the others keep their ratio to it, or give each by its field, such as
            ``{"encoder_layers": 4, "decoder_layers": 1}`` or a Swin's ``{"depths": [1, 1, 3, 1]}``,
            in nested configs also by path, as in ``{"vision_config.num_hidden_layers": 2}``. Lists
            with an entry, or the number, of each block are cut or repeated, unless they are given.
        experts: the new number of experts; the share of them that sees each token stays, or
            with ``keep=("num_experts_per_tok",)`` their number. None keeps the number of all.
        also: further fields that grow with the width, such as ``("kv_lora_rank",)``.
        keep: fields that stay.

    Raises:
        TypeError: the config has no ``hidden_size``, no number of blocks or experts, or no field of
            a name that was given; or values of fields were given in place of names.
        ValueError: a size would not be whole at this width; the message lists widths that work. Or
            a number of blocks would not be, the blocks would lose a kind, or the config's own class
            would refuse or change what comes of the depth.
    """
    _require_names(also=also, keep=keep)
    scaled = copy.deepcopy(config)
    set_width_(scaled, width, Sizes(heads, kv_heads, also, keep))
    if depth is not None:
        set_depth_(scaled, depth)
    if experts is not None:
        _set_experts(scaled, experts, keep)
    if is_marked(vars(scaled)):
        delattr(scaled, FACTORS_FIELD)  # what is built of it is under no plan
    return scaled


def _require_names(**fields: Any) -> None:
    for option, given in fields.items():
        if isinstance(given, Mapping | str):
            names_alone = (given,) if isinstance(given, str) else tuple(given)
            raise TypeError(
                f"{option}={given!r}: it takes names of fields that "
                f"{'follow the width' if option == 'also' else 'stay'}, as {option}={names_alone}. "
                "Numbers of blocks and experts go to depth= and experts=; other values into a "
                "config of your own, from which a factory builds the model: base=build"
            )


def _set_experts(config: Any, experts: int, keep: Sequence[str]) -> None:
    """Set the number of experts of the text, or of the first part that has any."""
    found = [
        (part, name)
        for part in (text_of(config), *(part for _, part in parts(config)))
        for name in hf_names.EXPERTS
        if name not in getattr(part, "attribute_map", {}) and _counts(part, name)
    ]
    if not found:
        present(config, hf_names.EXPERTS, "number of experts")
    part, name = found[0]
    active_name = next((n for n in hf_names.ACTIVE_EXPERTS if _counts(part, n)), None)
    if active_name is None:
        raise TypeError(
            f"{type(part).__name__} has no field that says how many experts see a token (looked "
            f"for {', '.join(hf_names.ACTIVE_EXPERTS)}), so paramz cannot keep their share: pass a "
            "factory as base=, which builds the model with as many experts as you want"
        )
    active, now, empty = (vars(part).get(n) for n in (active_name, name, hf_names.EMPTY_EXPERTS))
    top_k = Fraction(active) if active_name in keep else Fraction(active * experts, now)
    beside = Fraction((empty or 0) * experts, now)
    if top_k.denominator != 1 or top_k > experts or beside.denominator != 1:
        share = Fraction(active, now).denominator
        raise ValueError(
            f"{name} = {experts} would let {top_k} experts see a token, where {active} of {now} do "
            f"now{f' (and {beside} for {empty} without weights)' if empty else ''}. Multiples of "
            f"{math.lcm(share, Fraction(empty or 0, now).denominator)} keep that share; or keep="
            f"({active_name!r},) keeps as many active ones (up to all), which 'moe' has rules "
            "for, too, though its learning rates transfer less surely"
        )
    setattr(part, name, experts)
    setattr(part, active_name, int(top_k))
    if empty:
        setattr(part, hf_names.EMPTY_EXPERTS, int(beside))


def _counts(part: Any, name: str) -> bool:
    return isinstance(getattr(part, "__dict__", {}).get(name), int)


def config_factory(
    model: nn.Module, *, rank: int | None = None, **options: Any
) -> Callable[[int], nn.Module]:
    """A factory ``width -> model`` from a Hugging Face model's own config.

    A model with PEFT adapters gets the same adapters at every width, or with ``rank`` those of
    another rank (and the same ``lora_alpha``). With ``depth`` or ``experts`` it builds the base of
    a model that has more of them, as in
    ``parametrize_(model, "mup+completep", base=config_factory(model, depth=4), base_width=256)``.

    Args:
        model: the model.
        rank: of the adapters; None keeps theirs.
        **options: as for `scaled_config`, such as ``heads="size"`` or ``kv_heads="keep"``.

    Raises:
        TypeError: the model has no config, or as for `scaled_config`.
        ValueError: a rank is given and there are no adapters, or one would not be whole.
    """
    _require_names(also=options.get("also", ()), keep=options.get("keep", ()))
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise TypeError(
            f"base is a width, but {type(model).__name__} has no Hugging Face config to scale: "
            "pass a factory as base= together with base_width=."
        )
    adapters = getattr(model, "peft_config", None)
    wrapped = adapters is not None and hasattr(model, "get_base_model")
    if rank is not None:
        if adapters is None or not wrapped:
            raise ValueError(f"rank={rank}: {type(model).__name__} has no adapters of PEFT")
        adapters = {name: config_at_rank(each, rank) for name, each in dict(adapters).items()}
    kind: Callable[[Any], nn.Module] = type(model.get_base_model() if wrapped else model)  # type: ignore[operator]

    def scaled(width: int) -> Any:
        return scaled_config(config, width, **options)

    if adapters is None or not wrapped:
        return lambda width: kind(scaled(width))
    return lambda width: with_adapters(kind(scaled(width)), adapters)


def config_notes(model: nn.Module, base: Any) -> list[str]:
    """Which sizes of a config stay, where ``base`` is a width or a factory from this config.

    Args:
        model: the target.
        base: as given to `paramz.parametrize_`.
    """
    config = getattr(model, "config", None)
    if not isinstance(base, int) or config is None:
        return []
    notes = []
    if left := fields_left(config, Sizes()):
        notes.append(
            f"base={base} leaves these sizes of the config as they are: {', '.join(left)}. "
            "paramz.hf.config_factory(model, also=(...)) as base scales them, too"
        )
    if shared := shared_heads(config, base):
        said = ", ".join(f"{name} = {small} for {now}" for name, (now, small) in shared.items())
        notes.append(
            f"base={base} has fewer key-value heads, as it has fewer query heads: {said}. If your "
            "models keep their number at every width, so does "
            f"base=paramz.hf.config_factory(model, kv_heads='keep'), base_width={base}"
        )
    return notes
