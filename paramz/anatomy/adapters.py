"""Adapters of PEFT on a model: their tensors, the axis of the rank, and which start at zero.

They are recognised by the names under which PEFT's layers keep their factors, so nothing of PEFT is
imported. What has no rule over the rank is named, with what is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.axes import Axes
from paramz.anatomy.paths import join
from paramz.anatomy.tensors import listed


@dataclass(frozen=True, slots=True)
class AdapterPart:
    """What a tensor of an adapter is.

    Attributes:
        kind: ``down`` goes from a layer's input into the rank, ``up`` from there to its output; a
            ``gain`` multiplies entry by entry.
        axes: its fan_in and fan_out.
        rank: the axis that counts the rank; None where it has none.
        scaling: the number in the layer's code that multiplies what comes out; 1 without one.
        zero: it starts at zero, and its partner at random.
    """

    kind: Literal["down", "up", "gain"]
    axes: Axes
    rank: int | None = None
    scaling: float = 1.0
    zero: bool = False


def find_adapters(model: nn.Module) -> dict[str, AdapterPart]:
    """Parameter name -> its part, for the tensors of adapters; empty for a model without any."""
    found: dict[str, AdapterPart] = {}
    for path, module in model.named_modules():
        for down, up in names.ADAPTER_PAIRS:
            pairs = _factors(module, down, path), _factors(module, up, path)
            for key, (name, first) in pairs[0].items():
                if key not in pairs[1]:
                    continue
                other, second = pairs[1][key]
                zero = _starts_at_zero(first, second, table=down == names.EMBEDDING_DOWN)
                scaling = _scaling(module, key)
                sides = Axes(fan_in=(1,), fan_out=(0,))
                found[name] = AdapterPart("down", sides, 0, scaling, zero)
                found[other] = AdapterPart("up", sides, 1, scaling, not zero)
        for local, rank in names.ADAPTER_GAINS.items():
            for name, parameter in _factors(module, local, path).values():
                axes = Axes(fan_out=tuple(range(parameter.dim())), vector=True)
                found[name] = AdapterPart("gain", axes, rank)
    return found


def _factors(module: nn.Module, local: str, path: str) -> dict[str, tuple[str, nn.Parameter]]:
    """Adapter's name -> name and tensor of one factor, which PEFT keeps in a dict by adapters."""
    if local in module._parameters:  # a layer with one adapter, as loralib's
        parameter = module._parameters[local]
        return {} if parameter is None else {"": (join(path, local), parameter)}
    held: Any = module._modules.get(local)
    if isinstance(held, nn.ParameterDict):
        return {key: (join(path, f"{local}.{key}"), held[key]) for key in held}
    if not isinstance(held, nn.ModuleDict):
        return {}
    return {
        key: (join(path, f"{local}.{key}.weight"), weight)
        for key, each in held.items()
        if isinstance(weight := getattr(each, "weight", None), nn.Parameter)
    }


def _scaling(module: nn.Module, key: str) -> float:
    given: Any = getattr(module, names.ADAPTER_SCALING, 1.0)
    return float(given[key] if isinstance(given, Mapping) else given)


def _starts_at_zero(down: nn.Parameter, up: nn.Parameter, *, table: bool) -> bool:
    """Whether the first factor starts at zero; what PEFT does, where values do not tell."""
    if down.is_meta or up.is_meta:
        return table
    zero, other = not bool(down.any()), not bool(up.any())
    return table if zero == other else zero


def require_fresh(model: nn.Module) -> None:
    """Raise if both factors of an adapter are away from zero, so that it changes the function.

    Raises:
        ValueError: they are; the message says what to do instead.
    """
    parameters = dict(model.named_parameters())
    pairs: list[tuple[str, str]] = []
    parts = find_adapters(model)
    downs = [name for name, part in parts.items() if part.kind == "down"]
    ups = [name for name, part in parts.items() if part.kind == "up"]
    for one, other in zip(downs, ups, strict=True):
        both = [parameters[each] for each in (one, other)]
        if all(not p.is_meta and bool(p.any()) for p in both):
            pairs.append((one, other))
    if not pairs:
        return
    raise ValueError(
        f"neither factor of {listed([one for one, _ in pairs], 2)} starts at zero, so the adapted "
        "model does not start as the pretrained one, and no rule over the rank covers that. If "
        "they were trained, paramz.adopt_(model, ...) gives them their learning rates as they "
        "are. If they were drawn so (init_lora_weights=False, 'pissa', 'olora', 'orthogonal', "
        "'loftq', 'lora_ga', 'corda'), use init_lora_weights=True or 'gaussian'"
    )


def require_rules(model: nn.Module, *, wide: bool) -> None:
    """Raise if a model has no adapters, or some of a kind that has no rule over the rank.

    Args:
        model: the model.
        wide: the scheme has rules over width, too, which gains without a rank need.

    Raises:
        ValueError: so it is; the message says what is missing.
    """
    for config in _configs(model).values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if kind in names.ADAPTER_KINDS:
            continue
        why = names.ADAPTERS_WITHOUT_RULE.get(
            kind, "nobody has said here how what it adds moves with its rank"
        )
        raise ValueError(
            f"lora has no rule for adapters of PEFT's kind {kind}: {why}. It has rules for "
            f"{', '.join(names.ADAPTER_KINDS)}. For learning rates that do not move with the rank "
            "leave +lora out, and give base and model the same rank"
        )
    parts = find_adapters(model)
    if parts and not wide and all(part.rank is None for part in parts.values()):
        raise ValueError(
            f"{listed(list(parts), 2)} are gains without a rank, so over ranks nothing moves. Over "
            "width 'mup+lora' has rules for them"
        )
    if not parts:
        raise ValueError(
            f"lora is for adapters, and this {type(model).__name__} has none that paramz knows "
            f"(PEFT's {', '.join(names.ADAPTER_KINDS)}). Put them on first: "
            "model = peft.get_peft_model(model, peft.LoraConfig(r=...))"
        )


def _configs(model: nn.Module) -> Mapping[str, Any]:
    found = getattr(model, names.ADAPTER_CONFIGS, None)
    return found if isinstance(found, Mapping) else {}


def at_rank(model: nn.Module, rank: int) -> nn.Module:
    """The same adapters at another rank, freshly drawn, on the same frozen tensors.

    Scaling follows from PEFT's config, whose ``lora_alpha`` stays. The copy shares all tensors that
    are no adapter's, so it takes no memory for them.

    Args:
        model: a model of ``peft.get_peft_model``.
        rank: the rank of its config there; a ``rank_pattern`` moves in proportion.

    Raises:
        ValueError: it is no such model, its adapters have no rank, or one would not be whole.
    """
    if not hasattr(model, "get_base_model") or not _configs(model):
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
    configs = {name: config_at_rank(config, rank) for name, config in _configs(model).items()}
    plain = twin.unload()
    vars(plain).pop(names.ADAPTER_CONFIGS, None)
    with torch.random.fork_rng(devices=[]):
        made = with_adapters(plain, configs)
    for parameter, flag in trained:  # PEFT freezes what it is put on, and the model shares that.
        parameter.requires_grad_(flag)
    return made


def with_adapters(model: nn.Module, configs: Mapping[str, Any]) -> nn.Module:
    """Adapters on a model, as PEFT puts them there.

    Args:
        model: without any.
        configs: adapter's name -> PEFT's config.
    """
    from peft import get_peft_model

    (name, first), *more = copy.deepcopy(dict(configs)).items()
    adapted: Any = get_peft_model(model, first, adapter_name=name)
    for name, config in more:
        adapted.add_adapter(name, config)
    made: nn.Module = adapted
    return made


def config_at_rank(config: Any, rank: int) -> Any:
    """A copy of an adapter's config at another rank, with the same ``lora_alpha``.

    Args:
        config: of PEFT.
        rank: its new ``r``; those of a ``rank_pattern`` move in proportion.

    Raises:
        ValueError: it has no rank, or one would not be whole.
    """
    scaled = copy.deepcopy(config)
    own = getattr(config, "r", None)
    if not isinstance(own, int):
        raise ValueError(f"rank={rank}: {type(config).__name__} has no r that could be another")
    scaled.r = rank
    pattern = dict(getattr(config, "rank_pattern", None) or {})
    for key, value in pattern.items():
        if value * rank % own:
            raise ValueError(
                f"rank_pattern[{key!r}] = {value} would be {value * rank / own:g} at r={rank}, "
                f"where it is {value} at r={own}"
            )
        pattern[key] = value * rank // own
    if pattern:
        scaled.rank_pattern = pattern
    return scaled


def adapter_ratios(
    part: AdapterPart, shape: tuple[int, ...], base: AdapterPart, base_shape: tuple[int, ...]
) -> dict[str, float]:
    """Target / base of rank and scaling, of those that a tensor has."""
    if part.rank is None:
        return {}
    ratios = {"rank": shape[part.rank] / base_shape[part.rank]}
    if part.kind == "up":
        ratios["scaling"] = part.scaling / base.scaling
    return ratios


def adapter_notes(parts: Iterable[Mapping[str, float]]) -> list[str]:
    """What a reader of the plan should know of ranks and scalings, one sentence for each case."""
    found = dict.fromkeys((r["rank"], r["scaling"]) for r in parts if "scaling" in r)
    return [f"adapters: rank times {rank:.4g}, scaling times {s:.4g}" for rank, s in found]
