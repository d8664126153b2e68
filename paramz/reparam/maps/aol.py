"""Almost-orthogonal layers: any matrix, rescaled so that its operator norm is at most 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from torch import Tensor, nn

from paramz.anatomy.axes import Axes
from paramz.reparam.maps.flat import isometry_scale, nearest_isometry, require_matrix
from paramz.reparam.recipe import Scaling

_FIXED = {"p": Scaling("weight", branch=True, decays=False)}
# At first W = c P, so P has the rule of W / c.
_KEPT = {
    "p": Scaling(
        "weight", size=lambda std, larger: 1 / (std * larger ** Fraction(1, 2)), decays=False
    )
}


@dataclass(frozen=True)
class AOL:
    """A recipe for W = c P diag(sum_j |P^T P|_ij)^(-1/2), so that |W|_2 <= c.

    Prach and Lampert 2022 (arXiv 2208.03160), theorem 1. Where P has fewer rows than columns, its
    rows are rescaled by P P^T instead, by the same theorem for the transpose. P starts as the
    isometry nearest to the weight, where |W|_2 is exactly c; a random P would give a norm that
    falls with width. P has no weight decay, because W does not depend on the length of P.

    Attributes:
        bound: c. None stands for the c with which the weight keeps its variance; under muP the
            readout's bound has to shrink with width, as that one does.
    """

    bound: float | None = 1.0

    @property
    def tensors(self) -> tuple[str, ...]:
        """P, of the shape of the weight, and c."""
        return ("p", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of P."""
        return _KEPT if self.bound is None else _FIXED

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe itself, which fits every matrix (out, in).

        Raises:
            ValueError: the weight is not such a matrix.
        """
        require_matrix(module, name, axes, "AOL")
        return self

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The isometry nearest to the weight, and c."""
        scale = isometry_scale(weight) if self.bound is None else weight.new_tensor(self.bound)
        return {"p": nearest_isometry(weight), "scale": scale}

    def weight(self, p: Tensor, scale: Tensor) -> Tensor:
        """Compute the weight."""
        if p.shape[0] < p.shape[1]:
            return scale * p * (p @ p.T).abs().sum(1, keepdim=True).rsqrt()
        return scale * p * (p.T @ p).abs().sum(0, keepdim=True).rsqrt()
