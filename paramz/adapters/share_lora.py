"""ShareLoRA: low-rank adapters of which layers share a factor, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramz.adapters.layer import AdaptedLinear, become_


class LoRALinear(AdaptedLinear):
    """W x + s B A x with parameters lora_A (rank, in) and lora_B (out, rank), which others share.

    Attributes:
        scaling: s.
    """

    adapter: ShareLoRA
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scaling: float

    def added(self, input: Tensor) -> Tensor:
        """S B A x."""
        return self.scaling * F.linear(F.linear(input, self.lora_A), self.lora_B)

    def change(self) -> Tensor:
        """S B A."""
        return self.scaling * self.lora_B @ self.lora_A


@dataclass(frozen=True)
class ShareLoRA:
    """W x + s B A x, where layers whose names differ in numbers only share A, B, or both.

    ShareLoRA (Song et al. 2024, arXiv 2406.10785) shares A. With ``share="none"`` it is LoRA. A is
    drawn from U(-in^-1/2, in^-1/2) and B is zero. Sharing A and merging B's while they are trained
    (`share_closest_`) is ASLoRA (arXiv 2412.10135).

    Attributes:
        rank: of the product B A.
        share: which factors the layers have in common.
        scaling: s.

    >>> net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    >>> attached = ShareLoRA(rank=2).put_on_(list(net))
    >>> sum(p.numel() for name, p in net.named_parameters() if "lora" in name)
    64
    """

    rank: int
    share: Literal["none", "A", "B", "both"] = "A"
    scaling: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"ShareLoRA(rank={self.rank}): the rank must be at least 1")
        if self.share not in ("none", "A", "B", "both"):
            raise ValueError(f"share={self.share!r} is none of 'none', 'A', 'B' and 'both'")

    def at_rank(self, rank: int) -> Self:
        """The same adapter at another rank, with the same scaling."""
        return replace(self, rank=rank)

    def put_on_(self, layers: Sequence[nn.Linear]) -> None:
        """Put it on layers of one shape, which share factors.

        Raises:
            ValueError: there is one layer only, so that nothing is shared.
        """
        if self.share != "none" and len(layers) < 2:
            raise ValueError(
                f"ShareLoRA(share={self.share!r}) shares factors of layers whose names differ in "
                "numbers only, and here is a layer without another: leave it out of where=, or use "
                "share='none'"
            )
        downs = [random_rows(layer, self.rank, layer.in_features) for layer in layers]
        ups = [zeros(layer, layer.out_features, self.rank) for layer in layers]
        for number, layer in enumerate(layers):
            made = become_(layer, LoRALinear, self)
            made.scaling = self.scaling
            made.lora_A = downs[0 if self.share in ("A", "both") else number]
            made.lora_B = ups[0 if self.share in ("B", "both") else number]


def random_rows(layer: nn.Linear, rows: int, columns: int) -> nn.Parameter:
    """Draws from U(-in^-1/2, in^-1/2), as torch draws a linear layer, like the layer's weight."""
    bound = layer.in_features**-0.5
    return nn.Parameter(layer.weight.new_empty(rows, columns).uniform_(-bound, bound))


def zeros(layer: nn.Linear, rows: int, columns: int) -> nn.Parameter:
    """Zeros like the layer's weight."""
    return nn.Parameter(torch.zeros_like(layer.weight.new_empty(rows, columns)))
