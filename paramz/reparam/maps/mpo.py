"""Matrix product operators: weights of several layers with a central tensor in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.maps.flat import require_matrix
from paramz.reparam.recipe import Scaling

# A and B are isometries of a fixed size, so W changes by as much as the core does.
_SCALINGS = {
    "core": Scaling("weight", branch=True),
    "a": Scaling("number", decays=False),
    "b": Scaling("number", decays=False),
}


@dataclass(frozen=True)
class MPO:
    """A recipe for matrix product operators of three tensors, the central one in common.

    W_l[(i1 i2 i3), (j1 j2 j3)] = sum_pq A_l[(i1 j1), p] C[p, i2, j2, q] B_l[q, (i3 j3)].

    For the operators see Gao et al. 2020 (arXiv 1904.06194). All layers share the central tensor,
    C; each has small A_l and B_l of its own (Liu et al. 2023, arXiv 2303.16753). Weights are
    grouped as in `Relaxed`. C is made from the first weight; A_l and B_l start as random isometries
    (as the identity in the first layer), so that every W_l has the variance of the first weight,
    and at full bond the first weight keeps its values. Under muP C has the rule of W_l; A and B,
    whose sizes are fixed, are scalars. These rules were derived here.

    Attributes:
        ends: the sizes of i1, j1, i3 and j3, which are all the same and the same at every width;
            the square must divide both sizes of W.
        bond: the size of the axes p and q, at most ends^2; 0 stands for ends^2.
        sizes: the sizes of W; `bind` sets them.
    """

    ends: int = 4
    bond: int = 0
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.ends < 1 or not 0 <= self.bond <= self.ends**2:
            raise ValueError(
                f"MPO(ends={self.ends}, bond={self.bond}): ends must be at least 1, and bond from "
                "0 to ends^2 (0 stands for ends^2)"
            )

    @property
    def tensors(self) -> tuple[str, ...]:
        """C (bond, i2, j2, bond), A (ends^2, bond), B (bond, ends^2)."""
        return ("core", "a", "b")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rules of C, A and B."""
        return _SCALINGS

    @property
    def shared(self) -> tuple[str, ...]:
        """The central tensor."""
        return ("core",)

    @property
    def by_name(self) -> bool:
        """True: weights are grouped by name."""
        return True

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe with the sizes of the weight.

        Raises:
            ValueError: the weight is not a matrix (out, in), or ends^2 does not divide its sizes.
        """
        require_matrix(module, name, axes, "a matrix product operator")
        sizes = tuple(getattr(module, name).shape)
        if any(size % self.ends**2 for size in sizes):
            raise ValueError(
                f"MPO(ends={self.ends}) needs sizes that {self.ends**2} divides, not {sizes}: "
                "choose other ends, or other layers with where="
            )
        return replace(self, sizes=sizes)

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The parts of a weight that shares with no other."""
        return self.split_all([weight])[0]

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """C from the first weight, and an A and a B that are drawn for each of the others."""
        first, n = weights[0], self.ends
        bond = self.bond or n**2
        (d_out, d_in) = first.shape
        cube = first.view(n, d_out // n**2, n, n, d_in // n**2, n)
        outer = cube.permute(0, 3, 1, 4, 2, 5).reshape(n * n, d_out // n**2, d_in // n**2, n * n)
        one = torch.eye(n * n, dtype=first.dtype, device=first.device)
        core = outer[:bond, :, :, :bond]
        if bond < n**2:
            core = core * (first.square().sum() / core.square().sum()).sqrt()
        core = core.contiguous()
        made: list[dict[str, Tensor | nn.Module]] = []
        for number in range(len(weights)):
            a, b = (self._isometry(one) if number else one.clone() for _ in range(2))
            made.append({"core": core, "a": a[:, :bond].clone(), "b": b[:bond].clone()})
        return made

    def _isometry(self, one: Tensor) -> Tensor:
        if one.is_meta:
            return one.clone()
        # torch decomposes no matrix in half precision.
        kind = one.dtype if one.dtype == torch.float64 else torch.float32
        return nn.init.orthogonal_(torch.empty_like(one, dtype=kind)).to(one.dtype)

    def weight(self, core: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Compute the weight of one layer."""
        n = self.ends
        whole = torch.einsum("sp,pijq,qt->sijt", a, core, b)
        i, j = whole.shape[1:3]
        return whole.view(n, n, i, j, n, n).permute(0, 2, 4, 1, 3, 5).reshape(self.sizes)
