"""What a tensor of an adapter is, and where layers of PEFT keep such tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.axes import Axes
from paramz.anatomy.paths import join


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
        partner: the name of the other factor, or of the one that starts at zero for both (itself,
            if it is alone).
        uses: how many layers use it.
        mixed: they use it beside factors A that were drawn apart, so that their gradients differ.
        pool: its rows are chosen from a pool, by each layer apart.
        sizes: scale -> the size that its rules move with, for kinds where these do not follow from
            the fields above.
        free: further axes whose sizes follow from the rank.
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
    sizes: Mapping[str, float] | None = None
    free: tuple[int, ...] = ()

    @property
    def moving(self) -> tuple[int, ...]:
        """The axes whose sizes follow from the rank."""
        return self.free if self.rank is None else (self.rank, *self.free)


def factors_of(module: nn.Module, local: str, path: str) -> dict[str, tuple[str, nn.Parameter]]:
    """Adapter's name -> name and tensor of one factor, which PEFT keeps in a dict by adapters.

    Args:
        module: the layer.
        local: where it keeps them.
        path: of the layer.
    """
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


def scaling_of(module: nn.Module, key: str) -> float:
    """The number by which a layer's code multiplies what an adapter puts out."""
    given: Any = getattr(module, names.ADAPTER_SCALING, 1.0)
    return float(given[key] if isinstance(given, Mapping) else given)
