"""Adapters on a model: their tensors, the axis of the rank, and which start at zero.

They are recognised by the names under which layers of PEFT and of paramz.adapters keep their
factors, so nothing of PEFT is imported. What has no rule over the rank is named, with what is
missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.adapter_kinds import ADALORA_GAINS, CONV_TENSORS, parts_of
from paramz.anatomy.adapter_part import AdapterPart, factors_of, scaling_of
from paramz.anatomy.axes import Axes
from paramz.anatomy.paths import join
from paramz.anatomy.tensors import listed


def find_adapters(model: nn.Module) -> dict[str, AdapterPart]:
    """Parameter name -> its part, for the tensors of adapters; empty for a model without any.

    Tensors that layers share are there under each of their names.
    """
    found: dict[str, AdapterPart] = {}
    pairs: list[_Pair] = []
    for path, module in model.named_modules():
        if not module._modules and module._parameters.keys() <= {"weight", "bias"}:
            continue  # of a model of many layers most have nothing else
        for down, up in () if ADALORA_GAINS in module._modules else names.ADAPTER_PAIRS:
            firsts, seconds = (factors_of(module, local, path) for local in (down, up))
            for key in (key for key in firsts if key in seconds):
                (name, first), (other, second) = firsts[key], seconds[key]
                zero = _starts_at_zero(first, second, table=down == names.EMBEDDING_DOWN)
                parts = _pair(name, other, zero, scaling_of(module, key), _terms(module))
                found |= {name: parts[0], other: parts[1], **_bias(module, up, key, other)}
                pairs.append(((name, first), (other, second)))
        found |= _pools(module, path) | parts_of(module, path)
        for local, rank in names.ADAPTER_GAINS.items():
            for name, parameter in factors_of(module, local, path).values():
                axes = Axes(fan_out=tuple(range(parameter.dim())), vector=True)
                found[name] = AdapterPart("gain", axes, rank)
    # How many layers have a factor, as one parameter or in one module.
    uses = Counter(id(factor) for pair in pairs for _, factor in pair)
    for (name, first), (other, second) in pairs:
        ins, outs = uses[id(first)], uses[id(second)]
        found[name] = replace(found[name], uses=ins)
        found[other] = replace(found[other], uses=outs, mixed=outs > ins)
    return found


_Pair = tuple[tuple[str, nn.Parameter], tuple[str, nn.Parameter]]


def _bias(module: nn.Module, up: str, key: str, name: str) -> dict[str, AdapterPart]:
    """The bias of B, which PEFT's ``lora_bias`` adds: s multiplies it, too."""
    held: Any = module._modules.get(up)
    bias = getattr(held[key], "bias", None) if isinstance(held, nn.ModuleDict) else None
    if not isinstance(bias, nn.Parameter):
        return {}
    sizes = {"scaling": scaling_of(module, key)}
    axes = Axes(fan_out=(0,), vector=True)
    return {f"{name.removesuffix('weight')}bias": AdapterPart("gain", axes, sizes=sizes)}


def _terms(module: nn.Module) -> int | None:
    found: Any = getattr(module, names.ADAPTER_RANK, None)
    return None if found is None else int(found)


def _pools(module: nn.Module, path: str) -> dict[str, AdapterPart]:
    """The tensors of paramz.adapters whose axes are not those of a pair of factors."""
    if names.ADAPTER_ENTRIES in module._parameters:
        axes = Axes(fan_out=(0,), vector=True)
        return {join(path, names.ADAPTER_ENTRIES): AdapterPart("entry", axes, 1, zero=True)}
    if any(local not in module._parameters for local in names.ADAPTER_POOLS):
        return {}
    down, up = (join(path, local) for local in names.ADAPTER_POOLS)
    uses = float(getattr(module, names.ADAPTER_USES))
    rows, columns = _pair(down, up, False, scaling_of(module, ""), _terms(module))
    turned = Axes(fan_in=(0,), fan_out=(1,))
    return {
        down: replace(rows, uses=uses, pool=True),
        up: replace(columns, axes=turned, rank=0, uses=uses, pool=True, mixed=True),
    }


def _pair(
    down: str, up: str, zero: bool, scaling: float, terms: int | None
) -> tuple[AdapterPart, AdapterPart]:
    """The parts of the factors A (rank, in), zero at first or random, and B (out, rank)."""
    sides = Axes(fan_in=(1,), fan_out=(0,))
    one = AdapterPart("down", sides, 0, scaling, zero, terms, partner=up)
    return one, AdapterPart("up", sides, 1, scaling, not zero, terms, partner=down)


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
    parameters = dict(model.named_parameters(remove_duplicate=False))
    pairs = [
        name
        for name, part in find_adapters(model).items()
        if part.kind in ("down", "entry") or part.partner == name
        if all(_moved(parameters[each]) for each in (name, part.partner) if each is not None)
    ]
    if not pairs:
        return
    raise ValueError(
        f"neither factor of {listed(pairs, 2)} starts at zero, so the adapted "
        "model does not start as the pretrained one, and no rule over the rank covers that. If "
        "they were trained, paramz.adopt_(model, ...) gives them their learning rates as they "
        "are. If they were drawn so (init_lora_weights=False, 'pissa', 'olora', 'orthogonal', "
        "'loftq', 'lora_ga', 'corda'), use init_lora_weights=True or 'gaussian'"
    )


def _moved(parameter: nn.Parameter) -> bool:
    return not parameter.is_meta and bool(parameter.any())


# What to do without a rule: under a scheme for adapters alone, and where the width differs, too.
_NO_RULE = {
    False: "Keep the rank at which you tuned: the learning rate stays there, and no plan is needed",
    True: "For learning rates that do not move with the rank leave +{own} out, and give base and "
    "model the same rank",
}


def require_rules(model: nn.Module, own: str, *, wide: bool) -> None:
    """Raise if a model has no adapters, or some of a kind that has no rule over the rank.

    Args:
        model: the model.
        own: the scheme that has rules for adapters, or that factor of a product.
        wide: the scheme has rules over width, too, which gains without a rank need.

    Raises:
        ValueError: so it is; the message says what is missing.
    """
    for config in adapter_configs(model).values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        why = _lacking(kind, config, model, own, wide=wide)
        if why is not None:
            known = f". It has rules for {', '.join(names.ADAPTER_KINDS)}"
            raise ValueError(
                f"{'mup+' * wide}{own} has no rule for adapters of PEFT's kind {kind}: {why}"
                f"{known * (kind not in names.ADAPTER_KINDS)}. {_NO_RULE[wide].format(own=own)}"
            )
        if own == "rslora" and kind in names.ADAPTERS_THAT_ADD_UP:
            raise ValueError(
                f"{'mup+' * wide}rslora has no rule for adapters of PEFT's kind {kind}: what one "
                "of its factors needs depends on what another adds up to over the rank, which was "
                f"derived for steps that agree. Use '{'mup+' * wide}lora', which has"
            )
    parts = find_adapters(model)
    if parts and not wide and all(part.rank is None and not part.sizes for part in parts.values()):
        raise ValueError(
            f"{listed(list(parts), 2)} are gains without a rank, so over ranks nothing moves. Over "
            f"width 'mup+{own}' has rules for them"
        )
    if not parts:
        raise ValueError(
            f"{own} is for adapters, and this {type(model).__name__} has none that paramz knows "
            f"(PEFT's {', '.join(names.ADAPTER_KINDS)}, those of paramz.adapters). Put them on "
            "first: model = peft.get_peft_model(model, peft.LoraConfig(r=...))"
        )


def _lacking(kind: str, config: Any, model: nn.Module, own: str, *, wide: bool) -> str | None:
    """What is missing for a rule over the rank, or with ``wide`` over width and rank."""
    if kind not in names.ADAPTER_KINDS:
        return names.ADAPTERS_WITHOUT_RULE.get(
            kind, "nobody has said here how what it adds moves with its rank"
        )
    for field, varies in names.LORA_WITHOUT_RULE.items():
        if getattr(config, field, None) is not None:
            return f"with {field}, {varies}"
    if getattr(config, "coft", False):
        return "with coft=True its eps bounds how far it turns, whatever the learning rate"
    if any(len(getattr(m, local, ())) for m in model.modules() for local in CONV_TENSORS):
        return "use_effective_conv2d=True adds a tensor of rank x rank, whose size has no rule"
    if getattr(config, "block_share", False) or getattr(config, "init_weights", None) == "mini":
        return (
            "with block_share=True or init_weights='mini' one block serves many places whose "
            "gradients have random signs to one another, and no rule that was tried keeps the best "
            "learning rate (docs/adapters.md)"
        )
    if not wide:
        return None
    narrow = names.ADAPTERS_OF_ONE_WIDTH.get(kind)
    return None if narrow is None else f"{narrow}; '{own}' covers one width"


def adapter_kinds(model: nn.Module) -> list[str]:
    """The kinds of adapters on a model, as a reader knows them: PEFT's and paramz.adapters'."""
    configs = adapter_configs(model).values()
    found = [f"PEFT's {getattr(c.peft_type, 'value', c.peft_type)}" for c in configs]
    own: list[Any] = [m for m in model.modules() if hasattr(m, names.ADAPTER_AT_RANK)]
    found += [f"paramz.adapters.{type(module.adapter).__name__}" for module in own]
    return list(dict.fromkeys(found))


def adapter_configs(model: nn.Module) -> Mapping[str, Any]:
    """Adapter's name -> its config of PEFT; empty for other models."""
    found = getattr(model, names.ADAPTER_CONFIGS, None)
    return found if isinstance(found, Mapping) else {}


def adapter_ratios(
    part: AdapterPart, shape: tuple[int, ...], base: AdapterPart, base_shape: tuple[int, ...]
) -> dict[str, float]:
    """Target / base of rank, scaling and uses, of those that a tensor has."""
    if part.sizes is not None and base.sizes is not None:
        if part.sizes.keys() != base.sizes.keys():
            raise ValueError(
                f"an adapter's tensor {shape} moves with {', '.join(part.sizes) or 'nothing'} and "
                f"with {', '.join(base.sizes) or 'nothing'} in the base {base_shape}: their "
                "configs differ in more than the rank. Make them equal but for that"
            )
        ratios = {scale: part.sizes[scale] / base.sizes[scale] for scale in part.sizes}
        return {scale: ratio for scale, ratio in ratios.items() if (scale, ratio) != ("fan_out", 1)}
    if part.rank is None:
        return {}
    terms = (part.terms or shape[part.rank]) / (base.terms or base_shape[part.rank])
    if part.kind == "entry":
        return {"entries": terms}
    ratios = {"rank": terms}
    if part.kind == "up":
        ratios["scaling"] = part.scaling / base.scaling
    mixed = part.mixed or base.mixed
    if part.uses != base.uses and mixed and not part.pool:
        raise ValueError(
            f"{part.uses:g} layers share a factor B of adapters, {base.uses:g} in the base, beside "
            "factors A of their own: no rule covers that. Share A, too, or let as many share it in "
            "the base"
        )
    if part.uses != base.uses:
        ratios["mixed" if mixed else "uses"] = part.uses / base.uses
    return ratios
