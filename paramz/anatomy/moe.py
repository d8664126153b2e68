"""Mixture-of-experts layers: where their experts and routers are, and whether gates add up to one.

A layer is a module with a child ``experts``: a list of modules, or one module with stacked tensors
(experts, ...), as in Hugging Face's Mixtral, Qwen3-MoE, OLMoE, DeepSeek-V3 and gpt-oss, or with
matrices of all experts' units below each other (experts * units, ...), as in DBRX. Shared experts
see every token, so they are ordinary layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.bare_experts import bare_parts, count_bare
from paramz.anatomy.paths import join
from paramz.anatomy.tensors import listed


@dataclass(frozen=True, slots=True)
class MoePart:
    """What a tensor of a mixture-of-experts layer is.

    Attributes:
        kind: router, expert, or a bias that balances experts.
        layer: the path of its layer.
        axis: the axis that counts experts; None where every expert has its own tensor.
        times: where that axis counts the units of all experts instead: how many times as many
            experts there are as in the base.
    """

    kind: Literal["router", "expert", "balance"]
    layer: str
    axis: int | None
    times: float | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One mixture-of-experts layer: path, number of experts, experts per token (if it tells).

    ``bare``: its experts and routers are tensors of its own, see `paramz.anatomy.bare_experts`.
    """

    path: str
    experts: int
    top_k: int | None
    bare: bool = False


def find_layers(model: nn.Module) -> dict[str, Layer]:
    """The mixture-of-experts layers of a model, by path."""
    found = {}
    for path, module in model.named_modules():
        if (bare := count_bare(module)) is not None:
            found[path] = Layer(path, bare, _first_of(vars(module), names.BARE_ACTIVE), bare=True)
            continue
        experts = module._modules.get(names.EXPERT_CONTAINER)
        if experts is None:
            continue
        count = _count(experts) or _routed(module, experts)
        if count is not None:
            owners = [module, *(module._modules.get(name) for name in names.ROUTERS)]
            tops = (_first_of(vars(own), names.ACTIVE_EXPERTS) for own in owners if own is not None)
            top_k = next((k for k in tops if k is not None), None)
            found[path] = Layer(path, count, top_k)
    return found


def find_parts(model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, MoePart]:
    """Parameter name -> its part, for routers and experts of the given layers."""
    parts = {}
    for path, layer in layers.items():
        module = model.get_submodule(path)
        if layer.bare:
            for name, (kind, heads) in bare_parts(module, layer.experts).items():
                # An axis that counts heads, too, has its own ratio beside that of experts.
                units = 1.0 if heads > 1 else None
                parts[join(path, name)] = MoePart(kind, path, 0, units)
            continue
        container = join(path, names.EXPERT_CONTAINER)
        experts = model.get_submodule(container)
        for name, parameter in experts.named_parameters(remove_duplicate=False):
            stacked = not _is_listed(experts)
            units = stacked and _count(experts) is None
            if stacked and (parameter.ndim < 2 or parameter.shape[0] % layer.experts):
                continue
            if stacked and not units and parameter.shape[0] != layer.experts:
                continue
            parts[join(container, name)] = MoePart(
                "expert", path, 0 if stacked else None, 1.0 if units else None
            )
        for router in names.ROUTERS:
            child = module._modules.get(router)
            for name, parameter in child.named_parameters() if child is not None else ():
                if parameter.shape[:1] == (layer.experts,):
                    parts[join(join(path, router), name)] = MoePart("router", path, 0)
        for name, bias in _balances(module, layer.experts):
            if isinstance(bias, nn.Parameter):
                parts[join(path, name)] = MoePart("balance", path, bias.dim() - 1)
    return parts


def without_growing_experts(
    base: nn.Module, wider: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of a wider probe, as if it had the base's number of experts.

    Where that number is made from the width, it grows from base to wider probe and is still no
    width: it has a scale of its own.

    Args:
        base: the base model.
        wider: the wider probe.
        shapes: those of its parameters.
    """
    layers = find_layers(base)
    more = {
        path: layer
        for path, layer in find_layers(wider).items()
        if path in layers and layers[path].experts != layer.experts
    }
    if not more:
        return dict(shapes)
    kept = {name for name, _ in base.named_parameters(remove_duplicate=False)}
    inside = tuple(f"{join(path, names.EXPERT_CONTAINER)}." for path in more)
    found = {n: shape for n, shape in shapes.items() if n in kept or not n.startswith(inside)}
    for name, part in find_parts(wider, more).items():
        if part.axis is not None and name in found:
            shape, experts = found[name], layers[part.layer].experts
            size = shape[part.axis] * experts // more[part.layer].experts
            found[name] = (*shape[: part.axis], size, *shape[part.axis + 1 :])
    return found


def _first_of(own: Mapping[str, Any], attributes: Sequence[str]) -> int | None:
    return next((own[name] for name in attributes if type(own.get(name)) is int), None)


def _balances(layer: nn.Module, experts: int) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if name.rpartition(".")[2] in names.EXPERT_BALANCES and tensor.numel() == experts:
            yield name, tensor


def find_balances(model: nn.Module) -> dict[str, torch.Tensor]:
    """The bias on the scores of its experts, by the path of the layer: a buffer or a parameter.

    >>> layer = nn.Module()
    >>> layer.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    >>> layer.expert_bias = nn.Buffer(torch.zeros(2))
    >>> list(find_balances(layer))
    ['']
    """
    return {
        path: bias
        for path, layer in find_layers(model).items()
        for _, bias in _balances(model.get_submodule(path), layer.experts)
    }


def balance_notes(model: nn.Module) -> list[str]:
    """What the biases that balance experts are, in one sentence."""
    found = find_balances(model)
    if not found:
        return []
    kinds = {type(bias) is nn.Parameter for bias in found.values()}
    what = "parameters" if kinds == {True} else "buffers"
    return [
        f"experts of {listed(list(found), 2)} are balanced by biases on their scores ({what}), "
        "which no gradient reaches and no optimizer moves: paramz.moe.balance_ does, after a step"
    ]


def _is_listed(experts: nn.Module) -> bool:
    """Whether experts are modules of their own: in a list, or in a dict of modules of one kind."""
    if isinstance(experts, nn.ModuleDict):
        listed = _with_weights(experts)
        return len({type(expert) for expert in listed}) == 1 and len(listed) > 1
    return isinstance(experts, nn.ModuleList)


def _with_weights(experts: nn.Module) -> list[nn.Module]:
    """NLLB's dict of experts has a dropout beside them."""
    return [m for m in experts._modules.values() if m is not None and _has_weights(m)]


def _has_weights(module: nn.Module) -> bool:
    """Whether it, or a module in it, has a parameter; asked of every expert of every layer."""
    own = any(parameter is not None for parameter in module._parameters.values())
    return own or any(m is not None and _has_weights(m) for m in module._modules.values())


def _count(experts: nn.Module) -> int | None:
    if _is_listed(experts):
        return len(_with_weights(experts))
    stacks = [p for p in experts.parameters() if p.ndim == 3]
    return int(stacks[0].shape[0]) if stacks else None


def _routed(layer: nn.Module, experts: nn.Module) -> int | None:
    """To how many experts a router sends, where their units lie below each other in matrices.

    Only a number that modules of the layer tell, too, and by which the rows of all of its experts'
    matrices can be divided.
    """
    rows = [p.shape[0] for p in experts.parameters() if p.ndim == 2]
    routers = [layer._modules[name] for name in names.ROUTERS if name in layer._modules]
    told = {n for m in (layer, *experts.modules()) for n in vars(m).values() if type(n) is int}
    for parameter in (p for each in routers if each is not None for p in each.parameters()):
        count = parameter.shape[0] if parameter.ndim == 2 else 0
        if count > 1 and count in told and rows and all(n > count and n % count == 0 for n in rows):
            return count
    return None


def gate_sums(model: nn.Module, *, tokens: int = 256) -> dict[str, float]:
    """The mean over random tokens of the sum of a token's gates, per mixture-of-experts layer.

    The outputs of experts average only where this does not move with the number of experts. It can
    be measured where the router returns its gates, shape (tokens, top_k), as Hugging Face's do; a
    layer whose router does not is left out, and so is a model on the meta device.

    Args:
        model: the model.
        tokens: number of random inputs, with entries N(0, 1).
    """
    sums = {}
    for path, layer in find_layers(model).items():
        module = model.get_submodule(path)
        router: Any = next(
            (module._modules[n] for n in names.ROUTERS if n in module._modules), None
        )
        weight = getattr(router, "weight", None)
        if layer.top_k is None or not isinstance(weight, torch.Tensor) or weight.is_meta:
            continue
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(tokens, weight.shape[-1], generator=draw).to(weight)
        with torch.no_grad():
            output = router(x)
        shape = (tokens, layer.top_k)
        for part in output if isinstance(output, tuple) else ():
            if part.is_floating_point() and tuple(part.shape) == shape:
                sums[path] = float(part.sum(-1).mean())
    return sums


def gate_notes(model: nn.Module, base: nn.Module, twin: Callable[[str], str | None]) -> list[str]:
    """Whether gates add up to the same in model and base, one sentence for each case.

    Gates of bare routers are not seen, which counts where more experts are active than in the base.

    Args:
        model: the target.
        base: the base model.
        twin: path of a module of the target -> that of its twin in the base.
    """
    target_sums, base_sums = gate_sums(model), gate_sums(base)
    notes = _unseen_gates(find_layers(model), find_layers(base), twin)
    for path, total in target_sums.items():
        at_base = base_sums.get(twin(path) or "")
        if at_base is None:
            continue
        if abs(total / at_base - 1.0) < 0.05:
            notes[f"gates add up to {total:.2g}, as in the base"] = path
        else:
            notes[
                f"gates of {path} add up to {total:.2g}, in the base to {at_base:.2g}: the outputs "
                "of experts do not average and move with the number of experts. Normalise the "
                "gates (norm_topk_prob=True), or keep top_k / experts as in the base"
            ] = path
    return list(notes)


def _unseen_gates(
    layers: Mapping[str, Layer], base: Mapping[str, Layer], twin: Callable[[str], str | None]
) -> dict[str, str]:
    """Note -> path, of layers with bare routers and another number of active experts."""
    notes = {}
    for path, layer in layers.items():
        at_base = base.get(twin(path) or "")
        if layer.bare and at_base is not None and layer.top_k != at_base.top_k:
            notes[
                f"{path} sends a token to {layer.top_k} experts, in the base to {at_base.top_k}, "
                "and its gates are not seen: if they do not add up to one, as sigmoids do not, "
                "what it puts out grows with that number. Keep it as in the base"
            ] = path
    return notes


def number_ratios(layer: Layer, base: Layer) -> dict[str, float]:
    """Numbers of experts, and of active ones where both layers tell them: target / base."""
    active = layer.top_k / base.top_k if layer.top_k and base.top_k else None
    ratios = {"experts": layer.experts / base.experts}
    return ratios if active is None else {**ratios, "top_k": active}
