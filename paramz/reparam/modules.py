"""Modules some of whose tensors are computed from others.

The class of such a module is made here: a subclass of the module's own class, with a property in
place of each computed tensor. A property works for every module type and for code that reads
``module.weight`` from outside, as nn.MultiheadAttention reads that of its out_proj; torch.compile
and torch.export trace through it. The alternatives are worse: torch.nn.utils.parametrize also makes
a subclass, but its modules do not pickle, and it does not know of the flat list of weights that
nn.LSTM computes with; layer classes of our own would have to be written for every module type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paramz.reparam.recipe import Recipe

Maps = tuple[tuple[str, Recipe], ...]


class Reparametrized:
    """The base class that marks a module with computed tensors.

    Attributes:
        plain: the class that the module had before.
        maps: the names of the computed tensors, each with the recipe that computes it.
        held_weights: values that stand for computed tensors for a while, by name, where a module
            has them (`paramz.reparam.computed_once`).
    """

    plain: ClassVar[type[nn.Module]]
    maps: ClassVar[Maps]
    held_weights: Mapping[str, Tensor] | None = None

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        whole = super().__reduce_ex__(protocol)
        assert isinstance(whole, tuple)
        return (_blank, (self.plain, self.maps), *whole[2:])

    def extra_repr(self) -> str:
        """What the layer itself prints, and the recipe of each computed tensor."""
        own = super().extra_repr()  # type: ignore[misc]
        return ", ".join([own, *(f"{name}={recipe}" for name, recipe in self.maps)])


@cache
def _class(plain: Any, maps: Maps) -> type[nn.Module]:
    space: dict[str, Any] = {name: property(_getter(name, recipe)) for name, recipe in maps}
    space |= {"plain": plain, "maps": maps, "__module__": __name__}
    if issubclass(plain, nn.RNNBase):
        # It keeps its weights in a list, which would go on to hold the tensors of an earlier step.
        space["_flat_weights"] = property(_flat_weights, lambda self, value: None)
        space["_update_flat_weights"] = lambda self: None
        space["flatten_parameters"] = lambda self: None
    return type(f"Reparametrized{plain.__name__}", (Reparametrized, plain), space)


def _getter(name: str, recipe: Recipe) -> Callable[[Any], Tensor]:
    names = tuple(part_name(name, part) for part in recipe.tensors)

    def weight(module: Any) -> Tensor:
        held: Mapping[str, Tensor] | None = module.held_weights
        return held[name] if held else recipe.weight(*[getattr(module, n) for n in names])

    return weight


def _flat_weights(module: Any) -> list[Tensor | None]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def _blank(plain: Any, maps: Maps) -> nn.Module:
    made = _class(plain, maps)
    return made.__new__(made)


def attach_(
    module: nn.Module, name: str, recipe: Recipe, parts: dict[str, Tensor | nn.Module]
) -> None:
    """Replace a module's parameter by the tensors that a bound recipe computes it from.

    Args:
        module: the module.
        name: the parameter's name in it.
        recipe: bound to the parameter.
        parts: what the parameter is computed from, by the names in ``recipe.tensors``.
    """
    old = list(module._parameters.items())
    module._parameters.clear()
    for key, parameter in old:
        if key != name:
            module._parameters[key] = parameter
            continue
        for part, value in parts.items():
            full = part_name(name, part)
            if isinstance(value, nn.Parameter):
                module._parameters[full] = value
            elif isinstance(value, nn.Module):
                module.add_module(full, value)
            else:
                module.register_buffer(full, value)
    _become(module, (*maps_of(module), (name, recipe)))


def detach_(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    """Put a plain parameter where a computed tensor was."""
    maps = maps_of(module)
    gone = {part_name(name, part) for part in dict(maps)[name].tensors}
    place = False
    old = list(module._parameters.items())
    _become(module, tuple(entry for entry in maps if entry[0] != name))
    module._parameters.clear()
    for key, parameter in old:
        if key not in gone:
            module._parameters[key] = parameter
        elif not place:
            module._parameters[name] = weight
            place = True
    for key in gone:
        module._buffers.pop(key, None)
        module._modules.pop(key, None)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


def _become(module: nn.Module, maps: Maps) -> None:
    plain: Any = type(module).plain if isinstance(module, Reparametrized) else type(module)
    vars(module).pop("_flat_weights", None)
    module.__class__ = _class(plain, maps) if maps else plain


def is_reparametrized(model: nn.Module) -> bool:
    """Whether weights of a model are computed from others, see `paramz.reparametrize_`."""
    return any(isinstance(module, Reparametrized) for module in model.modules())


def maps_of(module: nn.Module) -> Maps:
    """The names of a module's computed tensors, and what computes them."""
    return type(module).maps if isinstance(module, Reparametrized) else ()


def computed(model: nn.Module) -> list[tuple[str, nn.Module, str, Recipe]]:
    """Every computed tensor of a model: the module's path, the module, its name and recipe."""
    return [
        (path, module, name, recipe)
        for path, module in model.named_modules(remove_duplicate=False)
        for name, recipe in maps_of(module)
    ]


def parts_of(module: nn.Module, name: str, recipe: Recipe) -> dict[str, Tensor | nn.Module]:
    """What a computed tensor is computed from."""
    return {part: getattr(module, part_name(name, part)) for part in recipe.tensors}


def part_name(name: str, part: str) -> str:
    """The name under which a module, or a model, has a part of one of its weights.

    >>> part_name("layers.0.weight", "g")
    'layers.0.weight_g'
    """
    return f"{name}_{part}"


def part_names(module: nn.Module) -> set[str]:
    """The names of everything that a module's computed tensors are computed from."""
    return {part_name(name, part) for name, recipe in maps_of(module) for part in recipe.tensors}


def value_of(module: nn.Module, name: str) -> nn.Parameter:
    """A computed tensor as a plain parameter, with exactly the values of the forward pass."""
    recipe = dict(maps_of(module))[name]
    parts = parts_of(module, name, recipe)
    # In train mode a look at the weight is a step of spectral normalization's power iteration.
    trained_now = [part for part in parts.values() if isinstance(part, nn.Module) and part.training]
    for part in trained_now:
        part.eval()
    try:
        with torch.no_grad():
            weight = getattr(module, name)
    finally:
        for part in trained_now:
            part.train()
    trained = any(parts[part].requires_grad for part in recipe.scalings)
    return nn.Parameter(weight.detach().clone().contiguous(), requires_grad=trained)
