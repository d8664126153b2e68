"""Stacks of layers, whose parameters know how many layers the stack has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from paramz.compat.unit_scaling.parameter import KeepsTypes, Parameter


class DepthModuleList(KeepsTypes, nn.ModuleList):
    """A module list whose parameters have its length as their depth.

    The depth is that of the list as it was built; later changes do not count.

    Args:
        modules: the layers.

    Raises:
        ValueError: a parameter has no type, or is in another such list already.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__(modules)
        _set_depth_(self, len(self))


class DepthSequential(KeepsTypes, nn.Sequential):
    """A sequence of layers whose parameters have its length as their depth.

    The depth is that of the sequence as it was built; later changes do not count.

    Args:
        *args: the layers, or an ordered dictionary of them.

    Raises:
        ValueError: a parameter has no type, or is in another such list already.

    >>> from paramz.compat.unit_scaling import Linear
    >>> DepthSequential(Linear(2, 2), Linear(2, 2))[0].weight.mup_scaling_depth
    2
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _set_depth_(self, len(self))


def _set_depth_(module: nn.Module, depth: int) -> None:
    for name, parameter in module.named_parameters():
        if not isinstance(parameter, Parameter):
            raise ValueError(
                f"Parameter {name} {tuple(parameter.shape)} has no type. Is it from a regular "
                "nn.Module? Use this package's layers, or Parameter(data, mup_type=...)"
            )
        if parameter.mup_scaling_depth is not None:
            raise ValueError(
                f"Parameter {name} {tuple(parameter.shape)} is in a stack of "
                f"{parameter.mup_scaling_depth} already: stacks do not nest, and layers are not "
                "shared between them"
            )
        parameter.mup_scaling_depth = depth
