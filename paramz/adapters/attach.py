"""Put adapters on a trained model, take them off, or add them to its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

from paramz.adapters.layer import (
    OF_THE_LAYER,
    AdaptedLinear,
    Adapter,
    adapted_layers,
    own_tensors,
    plain_,
    put_on_,
)


def attach_(model: nn.Module, adapter: Adapter, where: str | Sequence[str]) -> list[str]:
    """Put adapters on linear layers of a trained model, in place, and freeze all other tensors.

    The model computes what it did, as every adapter starts at zero. Layers whose names differ in
    numbers only and whose shapes are equal share what the adapter shares.

    Args:
        model: the trained model. Its own tensors keep their names.
        adapter: such as ``ShareLoRA(rank=8)``.
        where: a pattern that is searched for in the layers' paths, or the paths.

    Returns:
        the paths of the layers, in the order of the model.

    Raises:
        ValueError: there is no such layer, a layer is no plain ``nn.Linear`` (one with an adapter,
            one whose weight torch reads itself, a quantised one, one with a mask or a weight that
            is computed), or as for the adapter.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    >>> from paramz.adapters import ShareLoRA
    >>> attach_(net, ShareLoRA(rank=2), "[12]")
    ['1', '2']
    >>> [name for name, p in net.named_parameters() if p.requires_grad]
    ['1.lora_A', '1.lora_B', '2.lora_B']
    """
    found = _layers(model, where)
    before = [each for each in model.parameters() if each.requires_grad]
    adapters = {id(each) for one in adapted_layers(model).values() for each in own_tensors(one)}
    put_on_(adapter, found)
    for parameter in before:
        parameter.requires_grad_(id(parameter) in adapters)
    return list(found)


def _layers(model: nn.Module, where: str | Sequence[str]) -> dict[str, nn.Linear]:
    modules = dict(model.named_modules())
    if isinstance(where, str):
        found = {
            path: module
            for path, module in modules.items()
            if isinstance(module, nn.Linear) and re.search(where, path)
        }
    else:
        missing = [path for path in where if not isinstance(modules.get(path), nn.Linear)]
        if missing:
            raise ValueError(f"{', '.join(missing)}: the model has no linear layer of this name")
        found = {path: modules[path] for path in where}
    if not found:
        known = [path for path, module in modules.items() if isinstance(module, nn.Linear)]
        raise ValueError(
            f"where={where!r} matches no linear layer; there are {', '.join(known[:8]) or 'none'}"
        )
    for path, layer in found.items():
        if isinstance(layer, AdaptedLinear):
            raise ValueError(
                f"{path} has an adapter already, {layer.adapter}: paramz.adapters.merge_ adds it "
                "to the weight, paramz.adapters.detach_ takes it off"
            )
        if type(layer) is not nn.Linear:
            raise ValueError(
                f"{path} is a {type(layer).__name__}, whose code may use the weight in another way "
                "than nn.Linear does, so that an adapter would have no effect: leave it out of "
                "where="
            )
        more = [name for name in (*layer._parameters, *layer._buffers) if name not in OF_THE_LAYER]
        if more:
            raise ValueError(
                f"{path} has {', '.join(more)} beside its weight and bias, as a mask or a weight "
                "that is computed from others adds them: put it into the weight first, as "
                f"torch.nn.utils.prune.remove(layer, 'weight') does, or leave it out of where="
            )
        if isinstance(modules[path.rpartition(".")[0]], nn.TransformerEncoderLayer):
            raise ValueError(
                f"{path} is a layer of nn.TransformerEncoderLayer, which in evaluation reads its "
                "weights itself (torch's fast path), so that an adapter would have no effect "
                "there: leave it out of where=, or write that block as a module of your own"
            )
        if not layer.weight.is_floating_point():
            raise ValueError(f"{path}: its weight is quantised, {layer.weight.dtype}")
    return found


def _adapted(model: nn.Module) -> dict[str, AdaptedLinear]:
    found = adapted_layers(model)
    if not found:
        raise ValueError(f"this {type(model).__name__} has no adapters of paramz.adapters")
    return found


def detach_(model: nn.Module) -> None:
    """Take all adapters off again, in place: the trained model as it was, all of it frozen.

    Raises:
        ValueError: the model has none.
    """
    for layer in _adapted(model).values():
        plain_(layer)


def merge_(model: nn.Module) -> None:
    """Add all adapters to the weights of their layers, in place: a plain model, all of it frozen.

    The outputs are the same up to rounding.

    Raises:
        ValueError: the model has no adapters, or the weight of a layer with one is used elsewhere,
            too, such as that of a readout which is tied to the embedding.
    """
    layers = _adapted(model)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for path, layer in layers.items():
        tied = {
            name
            for name in names[id(layer.weight)]
            if model.get_submodule(name.rpartition(".")[0]) is not layer
        }
        if tied:
            raise ValueError(
                f"{path} has an adapter, and its weight is that of {', '.join(sorted(tied))}, too, "
                "which the change of the one would change as well. Keep the adapter, or untie them "
                f"first: {path}.weight = nn.Parameter({path}.weight.clone())"
            )
    with torch.no_grad():
        for layer in layers.values():
            layer.weight += layer.change()
            plain_(layer)
