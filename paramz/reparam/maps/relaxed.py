"""Layers that share one weight, each with a low-rank matrix of its own or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.maps.flat import require_matrix
from paramz.reparam.recipe import Scaling

_SHARED = Scaling("weight", branch=True)
_A = Scaling("reads")
_B = Scaling("writes", branch=True)


@dataclass(frozen=True)
class Relaxed:
    """A recipe for W_l = W + B_l A_l: one W for all blocks, and a pair of thin matrices for each.

    Bae et al. 2024, relaxed recursive transformers (arXiv 2410.20672), section 2.2. With rank 0 the
    blocks are tied completely. Weights of equal shape whose names differ only in numbers share a W,
    as ``layers.0.up.weight`` and ``layers.1.up.weight`` do. Under muP W has the rule of W_l, A is a
    readout (lr 1/fan_in for Adam) and B an input matrix (lr 1); this was derived here. W gets the
    gradients of all its uses. So under a depth scheme SGD's learning rate for W is divided by the
    factor by which depth, and with it the number of uses, has grown; Adam's is not.

    Attributes:
        rank: the rank of B A, the same at every width.
        init: ``first``: W is the weight of the first block, A is random and B zero, so that every
            block starts as the first one. ``svd``: W is the mean over blocks, and B A the best
            approximation of what a block's own weight differs from it by, exact at full rank.
    """

    rank: int = 0
    init: Literal["first", "svd"] = "first"

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"Relaxed(rank={self.rank}): the rank must not be negative")
        if self.init not in ("first", "svd"):
            raise ValueError(f"Relaxed(init={self.init!r}): init must be first or svd")

    @property
    def tensors(self) -> tuple[str, ...]:
        """W, and for each block A (rank, in) and B (out, rank)."""
        return ("shared", "a", "b") if self.rank else ("shared",)

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rules of W, A and B."""
        return {"shared": _SHARED, "a": _A, "b": _B} if self.rank else {"shared": _SHARED}

    @property
    def shared(self) -> tuple[str, ...]:
        """W."""
        return ("shared",)

    @property
    def by_name(self) -> bool:
        """True: weights are grouped by name."""
        return True

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe itself, which fits every matrix (out, in).

        Raises:
            ValueError: the weight is not such a matrix.
        """
        require_matrix(module, name, axes, "a relaxed recursive weight")
        return self

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The parts of a weight that shares with no other."""
        return self.split_all([weight])[0]

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """W, and an A and a B for each weight."""
        mean = torch.stack(list(weights)).mean(0) if self.init == "svd" else weights[0].clone()
        made: list[dict[str, Tensor | nn.Module]] = []
        for weight in weights:
            if not self.rank:
                made.append({"shared": mean})
                continue
            d_out, d_in = weight.shape
            if self.init == "first":
                a = torch.randn_like(weight.new_empty(self.rank, d_in)) / d_in**0.5
                b = weight.new_zeros(d_out, self.rank)
            else:
                u, s, vh = torch.linalg.svd((weight - mean).double(), full_matrices=False)
                root = s[: self.rank].sqrt()
                a = (root[:, None] * vh[: self.rank]).to(weight.dtype)
                b = (u[:, : self.rank] * root).to(weight.dtype)
            made.append({"shared": mean, "a": a, "b": b})
        return made

    def weight(self, shared: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """Compute the weight of one block."""
        if a is None or b is None:
            return shared * 1.0  # computed, like every weight: never the parameter itself
        return torch.addmm(shared, b, a)
