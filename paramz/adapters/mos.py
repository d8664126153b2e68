"""MoS: low-rank adapters whose factors are made of shards from pools that all layers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramz.adapters.layer import AdaptedLinear, become_
from paramz.adapters.share_lora import random_rows, zeros


class MoSLinear(AdaptedLinear):
    """W x + s B A x, whose factors are rows of its own and rows made of shards.

    Attributes:
        scaling: s.
        adapter_uses: how many layers use a shard, in the mean.
    """

    mos_A: nn.Parameter
    mos_B: nn.Parameter
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    mos_index_A: Tensor
    mos_index_B: Tensor
    scaling: float
    adapter_uses: float

    def _factors(self) -> tuple[Tensor, Tensor]:
        """A (rank, in) and the transpose of B, (rank, out)."""
        down, up = (
            pool[index].flatten(1)
            for pool, index in ((self.mos_A, self.mos_index_A), (self.mos_B, self.mos_index_B))
        )
        if not isinstance(getattr(self, "lora_A", None), nn.Parameter):
            return down, up
        return torch.cat((self.lora_A, down)), torch.cat((self.lora_B.T, up))

    def added(self, input: Tensor) -> Tensor:
        """S B A x."""
        down, up = self._factors()
        return self.scaling * F.linear(input, down) @ up

    def change(self) -> Tensor:
        """S B A."""
        down, up = self._factors()
        return self.scaling * up.T @ down


@dataclass(frozen=True)
class MoS:
    """W x + s B A x, where rows of A and columns of B are put together from shards of two pools.

    Mixture of Shards (Wang et al. 2024, arXiv 2410.00938): each layer chooses its shards by an
    index that is drawn at random and stays; apart for A and B (pair dissociation), every vector in
    pieces (vector sharding), and some rows in a layer for itself (private shards). Within a layer
    no shard is used twice. The pools have as many numbers as LoRA adapters of rank ``pool`` would.
    Only the paper's abstract and public summaries were read. A's numbers are drawn from
    U(-in^-1/2, in^-1/2) and B's are zero.

    Attributes:
        rank: of the product B A in each layer.
        pool: the rank of LoRA adapters with as many numbers, at most `rank`; of `rank` rows in a
            layer each is used by rank / pool layers, so ``pool`` times the number of layers must
            be `rank` at least.
        shards: into how many pieces each vector is cut.
        private: how many of the rows of each layer are its own.
        scaling: s.
    """

    rank: int
    pool: int
    shards: int = 1
    private: int = 0
    scaling: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.private < self.pool <= self.rank or self.shards < 1:
            raise ValueError(
                f"{self}: it wants 0 <= private < pool <= rank and shards >= 1. If this is the "
                "base of another rank, give base= a model whose adapters have a pool that fits"
            )

    @property
    def uses(self) -> float:
        """How many layers use a shard of a pool, in the mean."""
        return (self.rank - self.private) / (self.pool - self.private)

    def at_rank(self, rank: int) -> Self:
        """The same adapter at another rank, with pools of the same size."""
        return replace(self, rank=rank)

    def put_on_(self, layers: Sequence[nn.Linear]) -> None:
        """Put it on layers of one shape, which share two pools.

        Raises:
            ValueError: the pools have fewer rows than a layer needs, or a size is not divisible.
        """
        first, cut = layers[0], self.shards
        rows, common = (self.pool - self.private) * len(layers), self.rank - self.private
        if rows < common:
            raise ValueError(
                f"{self} on {len(layers)} layers: each would choose {common} different rows out of "
                f"{rows}. Let rank / pool be the number of layers at most"
            )
        if first.in_features % cut or first.out_features % cut:
            raise ValueError(
                f"shards={cut} does not divide {first.in_features} inputs and {first.out_features} "
                "outputs"
            )
        down = random_rows(first, rows * cut, first.in_features // cut)
        up = zeros(first, rows * cut, first.out_features // cut)
        for layer in layers:
            own = random_rows(layer, self.private, layer.in_features)
            own_up = zeros(layer, layer.out_features, self.private)
            made = become_(layer, MoSLinear, self)
            made.scaling, made.adapter_uses = self.scaling, self.uses
            made.mos_A, made.mos_B = down, up
            if self.private:
                made.lora_A, made.lora_B = own, own_up
            for name in ("mos_index_A", "mos_index_B"):
                chosen = torch.randperm(rows * cut)[: common * cut].view(common, cut)
                made.register_buffer(name, chosen.to(layer.weight.device))
