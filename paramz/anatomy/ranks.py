"""The adapters of a model at another rank, as the base of a scheme over ranks has them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.adapters import adapter_configs, find_adapters
from paramz.anatomy.paths import split
from paramz.anatomy.tensors import listed


def at_rank(model: nn.Module, rank: int) -> nn.Module:
    """The same adapters at another rank, freshly drawn, on the same frozen tensors.

    Scaling follows from PEFT's config, whose ``lora_alpha`` stays. The copy shares all tensors that
    are no adapter's, so it takes no memory for them.

    Args:
        model: a model of ``peft.get_peft_model``, or with adapters of paramz.adapters.
        rank: the rank of its config there; a ``rank_pattern`` moves in proportion.

    Raises:
        ValueError: it is no such model, its adapters have no rank, one would not be whole, or they
            have other tensors at that rank.
    """
    own = next((m for m in model.modules() if hasattr(m, names.ADAPTER_AT_RANK)), None)
    if own is not None:
        copied: nn.Module = getattr(own, names.ADAPTER_AT_RANK)(model, rank)
        return copied
    if not hasattr(model, "get_base_model") or not adapter_configs(model):
        raise ValueError(
            f"base={rank} is the rank of a base that paramz is to build, but this "
            f"{type(model).__name__} is not made by peft.get_peft_model: give base= a model with "
            "adapters of that rank"
        )
    adapted = find_adapters(model)
    kept = {
        id(tensor): tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if name not in adapted
    }
    trained = [(each, each.requires_grad) for each in model.parameters()]
    twin: Any = copy.deepcopy(model, kept)
    configs = {
        name: config_at_rank(config, rank) for name, config in adapter_configs(model).items()
    }
    for path, module in list(twin.named_modules()):  # to unload keeps the copies that are trained
        if names.COPIED_LAYER in module._modules and names.COPIES in module._modules:
            parent, local = split(path)
            setattr(twin.get_submodule(parent), local, module._modules[names.COPIED_LAYER])
    plain = twin.unload()
    vars(plain).pop(names.ADAPTER_CONFIGS, None)
    with torch.random.fork_rng(devices=[]):
        made = with_adapters(plain, configs)
    others = find_adapters(made).keys() ^ adapted.keys()
    if others:
        raise ValueError(
            f"at rank {rank} the adapters have other tensors than the model's: "
            f"{listed(sorted(others), 2)} (LoKr keeps a factor whole where the rank is half its "
            "size or more). Take ranks at which both have the same"
        )
    for parameter, flag in trained:  # PEFT freezes what it is put on, and the model shares that.
        parameter.requires_grad_(flag)
    return made


def with_adapters(model: nn.Module, configs: Mapping[str, Any]) -> nn.Module:
    """Adapters on a model, as PEFT puts them there.

    Those that would be drawn from the weights (PiSSA ...) are drawn as others are: PEFT takes them
    off the weights then, which may be those that another model was trained to.

    Args:
        model: without any.
        configs: adapter's name -> PEFT's config.
    """
    from peft import get_peft_model

    configs = copy.deepcopy(dict(configs))
    for config in configs.values():
        if str(getattr(config, "init_lora_weights", "")).lower().startswith(names.INITS_OF_WEIGHTS):
            config.init_lora_weights = True
    (name, first), *more = configs.items()
    adapted: Any = get_peft_model(model, first, adapter_name=name)
    for name, config in more:
        adapted.add_adapter(name, config)
    made: nn.Module = adapted
    return made


# What other kinds call their rank: the first that a config sets.
_RANKS = (
    "init_r",  # AdaLoRA
    "oft_block_size",
    "boft_block_size",
    "boft_block_num",
    "r",
)


def config_at_rank(config: Any, rank: int) -> Any:
    """A copy of an adapter's config at another rank, with the same ``lora_alpha``.

    Args:
        config: of PEFT. Its rank is its ``r``, AdaLoRA's ``init_r``, and the size of a block of
            OFT or BOFT (or their number, if the config gives that).
        rank: the new one; those of a ``rank_pattern`` and AdaLoRA's ``target_r`` move in
            proportion.

    Raises:
        ValueError: it has no rank, or one would not be whole.
    """
    scaled = copy.deepcopy(config)
    given = {name: getattr(config, name, None) for name in _RANKS}
    name = next((n for n, value in given.items() if isinstance(value, int) and value), None)
    if name is None:
        raise ValueError(f"rank={rank}: {type(config).__name__} has no r that could be another")
    own = getattr(config, name)
    setattr(scaled, name, rank)
    if name == "init_r":
        scaled.target_r = _moved(config.target_r, own, rank, "target_r")
    pattern = dict(getattr(config, "rank_pattern", None) or {})
    for key, value in pattern.items():
        pattern[key] = _moved(value, own, rank, f"rank_pattern[{key!r}]")
    if pattern:
        scaled.rank_pattern = pattern
    return scaled


def _moved(value: int, own: int, rank: int, name: str) -> int:
    """A rank that moves in proportion."""
    if value * rank % own:
        raise ValueError(
            f"{name} = {value} would be {value * rank / own:g} at r={rank}, where it is {value} at "
            f"r={own}"
        )
    return value * rank // own
