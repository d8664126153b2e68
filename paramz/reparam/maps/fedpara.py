"""FedPara: a weight of high rank from four thin factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.recipe import Scaling
from paramz.theory.power import Power
from paramz.theory.printed import IN

# Why the factors have these rules. Let h = W x.
# At a fixed rank all factors have the size t = (std of W)^(1/4). A change dX of X changes h by
# dX / t in units of h, because the other three factors make up 1/t of the product; a change of Y
# changes h by a sum over fan_in of terms with a factor t^3.
# Where the rank is the root of the width, factors (width, rank) have the size
# s = (std of W / rank)^(1/4), and a step of Adam with learning rate 1 changes h by
# rank^3/2 width^1/2 s^3. Under muP s = rank^-1/2, so that is the rank: these are the rules of a
# hidden matrix with fan_in = rank. `_grown` is s over the std of that matrix. As W's fan_in is
# rank^2, W's std is the square of that std. So `_grown` is 1 under muP, and rank^-1/4 in u-muP,
# where weights have std 1.


def _grown(std: Power) -> Power:
    factor: Power = (std**2 / IN) ** Fraction(1, 4)
    return factor / std


_X = Scaling("writes", size=lambda std, _: std ** Fraction(1, 4), grown=_grown)
_Y = Scaling("reads", size=lambda std, _: std ** Fraction(-3, 4), grown=_grown, branch=True)


@dataclass(frozen=True)
class FedPara:
    """A recipe for W = (X1 Y1^T) o (X2 Y2^T), where o multiplies entry by entry.

    Hyeon-Woo, Ye-Bin and Oh 2022 (arXiv 2108.06098), proposition 1: an m x n weight of rank up to
    rank^2 takes 2 rank (m + n) numbers. The product of four normal factors of std s has entries of
    variance rank^2 s^8, so s = (std of W / rank)^(1/4) keeps the weight's variance; its values are
    drawn anew. Kernels of convolutions count as matrices (outputs, inputs times positions).

    If the rank is left out, it is the smallest with which W can have full rank,
    ceil(sqrt(min(m, n))) (corollary 1 of the paper). Under muP the factors of a hidden matrix are
    then hidden matrices with fan_in = rank.

    If the rank stays while the width m grows, W of std m^-1/2 has rank^2 singular values of
    sqrt(m) / rank each. Activations keep their size at first, but what the layers learn to send
    into these directions grows with width, whatever the learning rates. X is then an input matrix
    of size t and Y a readout of size t^-3, with t = (std of W)^(1/4).

    These rules were derived here; they are not in the paper.

    Attributes:
        rank: the inner size of the factors; None for the one that gives full rank, which grows
            with width.
        shape: the shape of the weight; `bind` sets it.
    """

    rank: int | None = None
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"FedPara(rank={self.rank}): the rank must be at least 1")

    @property
    def tensors(self) -> tuple[str, ...]:
        """X1 and X2 (outputs, rank), Y1 and Y2 (inputs, rank)."""
        return ("x1", "y1", "x2", "y2")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rules of the factors."""
        return {"x1": _X, "y1": _Y, "x2": _X, "y2": _Y}

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe with the shape of the weight.

        Raises:
            ValueError: the outputs are not axis 0.
        """
        shape = tuple(getattr(module, name).shape)
        if axes.fan_out != (0,):
            raise ValueError(
                f"FedPara is for weights (outputs, ...), not for the {name} {shape} of a "
                f"{type(module).__name__}"
            )
        return replace(self, shape=shape)

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """Factors that are drawn so that the weight keeps its variance."""
        d_out, d_in = weight.shape[0], weight[0].numel()
        rank = self.rank or math.ceil(min(d_out, d_in) ** 0.5)
        std = (weight.square().mean().sqrt() / rank) ** 0.25
        sizes = {"x1": d_out, "y1": d_in, "x2": d_out, "y2": d_in}
        return {n: torch.randn_like(weight.new_empty(m, rank)) * std for n, m in sizes.items()}

    def weight(self, x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        """Compute the weight."""
        return ((x1 @ y1.T) * (x2 @ y2.T)).view(self.shape)
