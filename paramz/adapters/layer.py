"""A linear layer that an adapter was put on: what all kinds of adapters have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from paramz.anatomy.paths import unnumbered


@runtime_checkable
class Adapter(Protocol):
    """What `paramz.adapters.attach_` puts on layers: a frozen dataclass of numbers.

    Attributes:
        rank: over how many terms each output of an adapter sums.
    """

    @property
    def rank(self) -> int:
        """Over how many terms each output sums."""

    def at_rank(self, rank: int) -> Self:
        """The same adapter at another rank."""

    def put_on_(self, layers: Sequence[nn.Linear]) -> None:
        """Put it on layers of one shape whose names differ in numbers only."""


class AdaptedLinear(nn.Linear):
    """A linear layer with an adapter; the tensors of the layer itself keep their names.

    It is made of an ``nn.Linear`` in place and becomes one again, so code that knows the layer
    goes on as before.

    Attributes:
        adapter: what was put on it.
    """

    adapter: Adapter
    of_the_weight: ClassVar[tuple[str, ...]] = ()
    """Buffers that follow from the weight alone, so that they are the same at every rank."""

    def forward(self, input: Tensor) -> Tensor:
        """What the trained layer puts out, and what the adapter adds."""
        return super().forward(input) + self.added(input)

    def added(self, input: Tensor) -> Tensor:
        """What the adapter adds to the output, (..., out)."""
        raise NotImplementedError

    def change(self) -> Tensor:
        """What the adapter stands for in the weight, (out, in)."""
        raise NotImplementedError

    @property
    def adapter_rank(self) -> int:
        """Over how many terms each output of the adapter sums."""
        return self.adapter.rank

    @staticmethod
    def at_rank(model: nn.Module, rank: int) -> nn.Module:
        """A copy of a model with its adapters at another rank, freshly drawn, on the same tensors.

        Factors that were merged while they were trained are apart again.

        Args:
            model: with adapters.
            rank: of all of them.

        Raises:
            ValueError: the adapters cannot have that rank.
        """
        own = {id(each) for layer in adapted_layers(model).values() for each in own_tensors(layer)}
        for layer in adapted_layers(model).values():
            own -= {id(layer.get_buffer(name)) for name in layer.of_the_weight}
        kept = [each for each in (*model.parameters(), *model.buffers()) if id(each) not in own]
        twin = copy.deepcopy(model, {id(each): each for each in kept})
        layers = adapted_layers(twin)
        kinds = [(layers[next(iter(paths))].adapter, paths) for paths in _sharing(layers)]
        for layer in layers.values():
            plain_(layer, layer.of_the_weight)
        with torch.random.fork_rng(devices=[]):
            for adapter, paths in kinds:
                put_on_(adapter.at_rank(rank), {path: layers[path] for path in paths})
        return twin

    def extra_repr(self) -> str:
        """What the layer itself prints, and the adapter."""
        return f"{super().extra_repr()}, adapter={self.adapter}"


def become_(layer: nn.Linear, kind: type[AdaptedLinear], adapter: Adapter) -> Any:
    """Turn a layer into one with an adapter, which has no tensors yet."""
    layer.__class__ = kind
    made: Any = layer
    made.adapter = adapter
    return made


def plain_(layer: nn.Linear, but: Sequence[str] = ()) -> None:
    """Turn a layer with an adapter into a plain one again, with the weight that it has.

    Args:
        layer: the layer.
        but: buffers that the next adapter of its kind finds there.
    """
    for held in (layer._parameters, layer._buffers):
        for name in [name for name in held if name not in (*OF_THE_LAYER, *but)]:
            del held[name]
    for name in vars(layer).keys() & _NUMBERS:
        delattr(layer, name)
    layer.__class__ = nn.Linear


OF_THE_LAYER = ("weight", "bias")
_NUMBERS = frozenset({"adapter", "scaling", "adapter_uses"})


def put_on_(adapter: Adapter, layers: Mapping[str, nn.Linear]) -> None:
    """Put an adapter on layers by path; those share that differ in numbers only.

    Raises:
        ValueError: as the adapter's `put_on_` does; the layers are then as they were.
    """
    groups: dict[tuple[Any, ...], list[nn.Linear]] = {}
    for path, layer in layers.items():
        groups.setdefault((unnumbered(path), *layer.weight.shape), []).append(layer)
    try:
        for alike in groups.values():
            adapter.put_on_(alike)
    except Exception:
        for layer in layers.values():
            plain_(layer)
        raise


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLinear]:
    """The layers of a model that have adapters, by path."""
    return {p: m for p, m in model.named_modules() if isinstance(m, AdaptedLinear)}


def _sharing(layers: Mapping[str, AdaptedLinear]) -> list[list[str]]:
    """The paths of layers whose adapters have a parameter in common, and of each other one."""
    groups: list[tuple[set[int], list[str]]] = []
    for path, layer in layers.items():
        own = {id(each) for each in own_tensors(layer) if isinstance(each, nn.Parameter)}
        joined = [group for group in groups if group[0] & own]
        groups = [group for group in groups if not group[0] & own]
        parts = own.union(*(held for held, _ in joined))
        groups.append((parts, [*(each for _, paths in joined for each in paths), path]))
    return [paths for _, paths in groups]


def own_tensors(layer: AdaptedLinear) -> list[Tensor]:
    """The parameters and buffers of a layer's adapter."""
    held = [*layer._parameters.items(), *layer._buffers.items()]
    return [each for name, each in held if each is not None and name not in OF_THE_LAYER]
