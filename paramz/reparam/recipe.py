"""What a reparametrization is: how to split a weight into other tensors and compute it again.

Recipes are frozen dataclasses. ``bind`` fits one to a tensor (which axes are its outputs),
``split`` makes the new tensors from the weight's values, ``weight`` computes it from them. A
scaling per trainable tensor says which rule it has under muP and the other schemes.
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
    """Which rule a new tensor has, told from the weight W that is computed from it.

    Attributes:
        role: ``weight``: that of W. ``per output``: one number per output, so vector where W's
            fan_out grows and else scalar. ``reads``: a matrix from W's inputs to a fixed size, so
            output or scalar. ``writes``: from a fixed size to W's outputs, so input or scalar.
            Where the fixed size grows after all, both are a matrix like W, (large, small) with the
            fan_in and fan_out of that. ``number``: scalar.
        size: from the powers of W's std at init and of the larger of its fans, what the tensor's
            size is over that of its role.
        grown: the same for a matrix whose fixed size grows, from the std of a matrix with its role
            and its own fans; W's branch factor is in `size`.
        branch: the tensor takes over the branch factor that was folded into W, so its rule does.
        decays: weight decay means something for it.
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
        tensors: the names of what `weight` takes, in order: parameters, buffers and modules.
        scalings: of those that are trained.
    """

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the arguments of `weight`."""

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """One per trainable tensor."""

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe for the tensor ``name`` of a module; raises ValueError where it has none."""

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The new tensors; `weight` of them is the weight again, or has its variance."""

    def weight(self, *tensors: Any) -> Tensor:
        """The weight."""


@runtime_checkable
class SharingRecipe(Recipe, Protocol):
    """A reparametrization of several weights of one shape, which have some tensors in common.

    Attributes:
        shared: the names of these.
        by_name: weights are grouped by their names up to numbers; else all that were chosen are.
    """

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the tensors in common."""

    @property
    def by_name(self) -> bool:
        """Group weights by name and shape."""

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """The new tensors of every weight; shared ones are the same objects."""
