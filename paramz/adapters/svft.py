"""SVFT: a sparse matrix of weights between the singular vectors of a trained layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramz.adapters.layer import AdaptedLinear, become_
from paramz.adapters.share_lora import zeros


class SVFTLinear(AdaptedLinear):
    """W x + (out / in)^1/2 U M V x, M sparse, U (out, k) and V (k, in) singular vectors of W.

    Its parameter svft_M (k, entries) has the entries of every row of M, and svft_columns their
    columns.
    """

    of_the_weight = ("svft_U", "svft_V")
    svft_M: nn.Parameter
    svft_U: Tensor
    svft_V: Tensor
    svft_columns: Tensor

    def _middle(self) -> Tensor:
        k = len(self.svft_M)
        middle = self.svft_M.new_zeros(k, k).scatter(1, self.svft_columns, self.svft_M)
        unit: float = (self.out_features / self.in_features) ** 0.5
        return middle * unit

    def added(self, input: Tensor) -> Tensor:
        """(out / in)^1/2 U M V x."""
        return F.linear(F.linear(F.linear(input, self.svft_V), self._middle()), self.svft_U)

    def change(self) -> Tensor:
        """(out / in)^1/2 U M V."""
        return self.svft_U @ self._middle() @ self.svft_V


@dataclass(frozen=True)
class SVFT:
    """W + (out / in)^1/2 U M V: singular vectors of W stay, a sparse matrix M is trained from zero.

    Lingam et al. 2024 (arXiv 2405.19597). With one entry in each row M is diagonal. In units of
    (out / in)^1/2, in which the spectral condition (arXiv 2310.17813) measures a weight, M has one
    learning rate at every width and for layers of every shape; for square ones it is the paper's.

    Attributes:
        entries: how many entries of M there are in each row.
        pattern: ``banded``: those next to the diagonal; ``random``: drawn, the diagonal among them.
    """

    entries: int = 1
    pattern: Literal["banded", "random"] = "banded"

    def __post_init__(self) -> None:
        if self.entries < 1 or self.pattern not in ("banded", "random"):
            raise ValueError(f"{self}: entries must be 1 at least, pattern 'banded' or 'random'")

    @property
    def rank(self) -> int:
        """The number of entries in a row, over which each output sums."""
        return self.entries

    def at_rank(self, rank: int) -> Self:
        """With another number of entries in a row."""
        return replace(self, entries=rank)

    def put_on_(self, layers: Sequence[nn.Linear]) -> None:
        """Put it on layers, each by itself.

        Raises:
            ValueError: a row would have more entries than there are singular vectors, or a weight
                is not finite.
        """
        for layer in layers:
            k = min(layer.weight.shape)
            if self.entries > k:
                raise ValueError(
                    f"{self} on a layer of {k} singular vectors: there are no more entries in a row"
                )
            vectors = [layer._buffers.get(name) for name in SVFTLinear.of_the_weight]
            if any(each is None for each in vectors):  # not those of another rank
                vectors = self._vectors(layer.weight.detach())
            middle = zeros(layer, k, self.entries)
            made = become_(layer, SVFTLinear, self)
            made.svft_M = middle
            for name, each in zip(SVFTLinear.of_the_weight, vectors, strict=True):
                made.register_buffer(name, each)
            made.register_buffer("svft_columns", self._columns(k).to(layer.weight.device))

    def _vectors(self, weight: Tensor) -> list[Tensor | None]:
        """The singular vectors U (out, k) and V (k, in) of a weight."""
        if not weight.is_meta and not weight.isfinite().all():
            raise ValueError(f"{self}: a weight {tuple(weight.shape)} is not finite")
        u, _, v = torch.linalg.svd(weight.float(), full_matrices=False)
        return [each.to(weight.dtype).contiguous() for each in (u, v)]

    def _columns(self, k: int) -> Tensor:
        """The columns of the entries of M, (k, entries), each once in a row."""
        if self.pattern == "random":
            order = torch.rand(k, k)
            order.fill_diagonal_(2.0)
            return order.argsort(1, descending=True)[:, : self.entries]
        offsets = torch.arange(self.entries) - self.entries // 2
        return (torch.arange(k)[:, None] + offsets) % k
