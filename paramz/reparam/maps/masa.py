"""Dictionaries: weights of several layers as sums of matrices that they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.maps.flat import require_matrix
from paramz.reparam.recipe import Scaling

_SCALINGS = {
    "atoms": Scaling("weight", branch=True),
    "coefficients": Scaling("number", decays=False),
}


@dataclass(frozen=True)
class MASA:
    """A recipe for W_l = sum_k c_lk D_k: matrix atoms D in common, coefficients for each layer.

    Zhussip et al. 2025, matrix atom sharing in attention (arXiv 2508.04581). Weights are grouped as
    in `Relaxed`. Under muP the atoms have the rule of W_l and the coefficients are scalars. Atoms
    get the gradients of all their uses, so under a depth scheme SGD's learning rate for them is
    divided as in `Relaxed`. This was derived here.

    Attributes:
        atoms: their number, less than the number of weights that share them.
        init: ``first``: the atoms are the first weights, and each layer starts as one of them, in
            turn. ``best``: the best approximation of the weights by so many atoms, for trained
            ones: their principal components, by the eigenvectors of the layers' inner products.
    """

    atoms: int
    init: Literal["first", "best"] = "first"

    def __post_init__(self) -> None:
        if self.atoms < 1:
            raise ValueError(f"MASA(atoms={self.atoms}): there must be at least one atom")
        if self.init not in ("first", "best"):
            raise ValueError(f"MASA(init={self.init!r}): init must be first or best")

    @property
    def tensors(self) -> tuple[str, ...]:
        """D (atoms, out, in), and for each layer c (atoms)."""
        return ("atoms", "coefficients")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rules of D and c."""
        return _SCALINGS

    @property
    def shared(self) -> tuple[str, ...]:
        """The atoms."""
        return ("atoms",)

    @property
    def by_name(self) -> bool:
        """True: weights are grouped by name."""
        return True

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe itself, which fits every matrix (out, in).

        Raises:
            ValueError: the weight is not such a matrix.
        """
        require_matrix(module, name, axes, "a sum of matrix atoms")
        return self

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The parts of a weight that shares with no other.

        Raises:
            ValueError: always, as one weight has no fewer atoms.
        """
        return self.split_all([weight])[0]

    def split_all(self, weights: Sequence[Tensor]) -> list[dict[str, Tensor | nn.Module]]:
        """The atoms, and the coefficients of each weight.

        Raises:
            ValueError: there are as many atoms as weights, so that nothing would be shared.
        """
        first = weights[0]
        if first.is_meta:
            atoms = first.new_empty(self.atoms, *first.shape)
            return [{"atoms": atoms, "coefficients": first.new_empty(self.atoms)} for _ in weights]
        if self.atoms >= len(weights):
            raise ValueError(
                f"MASA(atoms={self.atoms}) shares atoms of weights of one shape whose names differ "
                f"in numbers only, and here are {len(weights)} of them: take fewer atoms than that"
            )
        if self.init == "first":
            rows = torch.eye(self.atoms, dtype=first.dtype, device=first.device)
            atoms = torch.stack(list(weights[: self.atoms]))
            chosen = [rows[number % self.atoms].clone() for number in range(len(weights))]
        else:
            whole = torch.stack([weight.double().flatten() for weight in weights])
            kept = torch.linalg.eigh(whole @ whole.T)[1][:, -self.atoms :]
            atoms = (kept.T @ whole).view(self.atoms, *first.shape).to(first.dtype).contiguous()
            chosen = [row.clone() for row in kept.to(first.dtype)]
        return [{"atoms": atoms, "coefficients": row} for row in chosen]

    def weight(self, atoms: Tensor, coefficients: Tensor) -> Tensor:
        """Compute the weight of one layer."""
        return torch.einsum("k,koi->oi", coefficients, atoms)
