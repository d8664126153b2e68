"""Adapters on a model: their tensors, the axis of the rank, and which start at zero.

They are recognised by the names under which layers of PEFT and of paramz.adapters keep their
factors, so nothing of PEFT is imported. What has no rule over the rank is named, with what is
missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

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
            ``gain`` multiplies entry by entry; an ``entry`` is one of a sparse matrix.
        axes: its fan_in and fan_out.
        rank: the axis that the rank moves; None where it has none.
        scaling: the number in the layer's code that multiplies what comes out; 1 without one.
        zero: it starts at zero, and its partner at random.
        terms: the rank, where the axis does not count it.
        partner: the name of the other factor.
        uses: how many layers use it.
        mixed: they use it beside factors A that were drawn apart, so that their gradients differ.
        pool: its rows are chosen from a pool, by each layer apart.
    """

    kind: Literal["down", "up", "gain", "entry"]
    axes: Axes
    rank: int | None = None
    scaling: float = 1.0
    zero: bool = False
    terms: int | None = None
    partner: str | None = None
    uses: float = 1.0
    mixed: bool = False
    pool: bool = False


def find_adapters(model: nn.Module) -> dict[str, AdapterPart]:
    """Parameter name -> its part, for the tensors of adapters; empty for a model without any.

    Tensors that layers share are there under each of their names.
    """
    found: dict[str, AdapterPart] = {}
    uses = _uses(model)
    for path, module in model.named_modules():
        for down, up in names.ADAPTER_PAIRS:
            pairs = _factors(module, down, path), _factors(module, up, path)
            for key, (name, first) in pairs[0].items():
                if key not in pairs[1]:
                    continue
                other, second = pairs[1][key]
                zero = _starts_at_zero(first, second, table=down == names.EMBEDDING_DOWN)
                parts = _pair(name, other, zero, _scaling(module, key), _terms(module))
                ins, outs = uses.get(id(first), 1), uses.get(id(second), 1)
                found[name] = replace(parts[0], uses=ins)
                found[other] = replace(parts[1], uses=outs, mixed=outs > ins)
        found |= _pools(module, path)
        for local, rank in names.ADAPTER_GAINS.items():
            for name, parameter in _factors(module, local, path).values():
                axes = Axes(fan_out=tuple(range(parameter.dim())), vector=True)
                found[name] = AdapterPart("gain", axes, rank)
    return found


def _uses(model: nn.Module) -> dict[int, int]:
    """Id of a parameter -> how many modules have it, where these are several."""
    count = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    return {key: number for key, number in count.items() if number > 1}


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
    rows, columns = _pair(down, up, False, _scaling(module, ""), _terms(module))
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
    parameters = dict(model.named_parameters(remove_duplicate=False))
    pairs = [
        name
        for name, part in find_adapters(model).items()
        if part.kind in ("down", "entry")
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


def require_rules(model: nn.Module, *, wide: bool) -> None:
    """Raise if a model has no adapters, or some of a kind that has no rule over the rank.

    Args:
        model: the model.
        wide: the scheme has rules over width, too, which gains without a rank need.

    Raises:
        ValueError: so it is; the message says what is missing.
    """
    for config in adapter_configs(model).values():
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
            f"(PEFT's {', '.join(names.ADAPTER_KINDS)}, those of paramz.adapters). Put them on "
            "first: model = peft.get_peft_model(model, peft.LoraConfig(r=...))"
        )


def adapter_configs(model: nn.Module) -> Mapping[str, Any]:
    """Adapter's name -> its config of PEFT; empty for other models."""
    found = getattr(model, names.ADAPTER_CONFIGS, None)
    return found if isinstance(found, Mapping) else {}


def adapter_ratios(
    part: AdapterPart, shape: tuple[int, ...], base: AdapterPart, base_shape: tuple[int, ...]
) -> dict[str, float]:
    """Target / base of rank, scaling and uses, of those that a tensor has."""
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


def adapter_notes(parts: Iterable[Mapping[str, float]]) -> list[str]:
    """What a reader of the plan should know of ranks and scalings, one sentence for each case."""
    found = dict.fromkeys((r["rank"], r["scaling"]) for r in parts if "scaling" in r)
    return [f"adapters: rank times {rank:.4g}, scaling times {s:.4g}" for rank, s in found]
