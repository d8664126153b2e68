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
# W = c P at first, so P has the rule of W / c.
_KEPT = {
    "p": Scaling(
        "weight", size=lambda std, larger: 1 / (std * larger ** Fraction(1, 2)), decays=False
    )
}


@dataclass(frozen=True)
class AOL:
    """W = c P diag(sum_j |P^T P|_ij)^(-1/2), so that |W|_2 <= c, as a recipe.

    Prach and Lampert 2022 (arXiv 2208.03160), theorem 1. Where P has fewer rows than columns the
    rows are rescaled by P P^T instead, the same theorem for the transpose. P starts as the isometry
    nearest to the weight, where |W|_2 = c exactly: a random P would give a norm that falls with
    width. The length of P means nothing, so it has no decay.

    Attributes:
        bound: c; None keeps the weight's variance, with a bound of what that takes. Under muP the
            readout's has to shrink with width, which None does.
    """

    bound: float | None = 1.0

    @property
    def tensors(self) -> tuple[str, ...]:
        """P, of the weight's shape, and c."""
        return ("p", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of P."""
        return _KEPT if self.bound is None else _FIXED

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """Raises ValueError for anything but a matrix (out, in)."""
        require_matrix(module, name, axes, "AOL")
        return self

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """Start at the nearest isometry."""
        scale = isometry_scale(weight) if self.bound is None else weight.new_tensor(self.bound)
        return {"p": nearest_isometry(weight), "scale": scale}

    def weight(self, p: Tensor, scale: Tensor) -> Tensor:
        """The weight."""
        if p.shape[0] < p.shape[1]:
            return scale * p * (p @ p.T).abs().sum(1, keepdim=True).rsqrt()
        return scale * p * (p.T @ p).abs().sum(0, keepdim=True).rsqrt()
