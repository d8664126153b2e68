"""What a reparametrization is: how to split a weight into parts and compute it from them again.

A recipe is a frozen dataclass. Its method ``bind`` fits it to one weight (which axes are outputs),
``split`` makes the parts from the values of the weight, and ``weight`` computes the weight from the
parts. A `Scaling` for each part that is trained says which rule the part has under muP and the
other schemes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.theory.power import ONE, Power


@dataclass(frozen=True)
class Scaling:
    """The rule of a part, in terms of the weight W that is computed from it.

    Attributes:
        role: how the role of the part follows from that of W. ``weight``: it is the same.
            ``per output``: one number per output, so a vector where W's fan_out grows and else a
            scalar. ``reads``: a matrix from W's inputs to a fixed size, so an output where W's
            fan_in grows and else a scalar. ``writes``: a matrix from a fixed size to W's outputs,
            so an input where W's fan_out grows and else a scalar. (Where the size that is meant to
            be fixed grows after all, ``reads`` and ``writes`` are matrices with W's role and with
            the fan_in and fan_out of their own shape.) ``number``: a scalar.
        size: how the part's size at init, relative to that of a tensor of its role, scales: a
            function of two powers, W's std at init and the larger of W's fans.
        grown: the same for a matrix whose fixed size grows: a function of the std of a matrix with
            that role and those fans. W's branch factor goes through `size`.
        branch: the part takes over the branch factor that was folded into W.
        decays: weight decay has a meaning for the part.
    """

    role: Literal["weight", "per output", "reads", "writes", "number"]
    size: Callable[[Power, Power], Power] = lambda std, larger: ONE
    grown: Callable[[Power], Power] = lambda std: ONE
    branch: bool = False
    decays: bool = True


@runtime_checkable
class Recipe(Protocol):
    """A reparametrization of one weight.

    Attributes:
        tensors: the names of the parts, which are the arguments of `weight` in this order:
            parameters, buffers and modules.
        scalings: the rules of the parts that are trained, by name.
    """

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the parts, in the order in which `weight` takes them."""

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of each part that is trained."""

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe for one weight.

        Args:
            module: the module that has the weight.
            name: the weight's name in the module.
            axes: which axes of the weight are its fan_in and fan_out.

        Raises:
            ValueError: the recipe cannot be applied to this weight.
        """

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The parts, from which `weight` computes the same weight, or one of the same variance."""

    def weight(self, *tensors: Any) -> Tensor:
        """Compute the weight from its parts."""


@runtime_checkable
class SharingRecipe(Recipe, Protocol):
    """A reparametrization of several weights of one shape, which have some parts in common.

    Attributes:
        shared: the names of the common parts.
        by_name: weights share parts if their shapes are equal and their names are equal but for
            numbers; False: all weights that were chosen share them.
    """

    @property
    def shared(self) -> tuple[str, ...]:
        """The names of the common parts."""

    @property
    def by_name(self) -> bool:
        """Whether only weights of equal shape and of equal name but for numbers share parts."""

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """The parts of every weight; a shared part is the same object each time."""
