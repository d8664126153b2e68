"""Orthogonal weights: rows or columns orthonormal, times a factor, with torch's own maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from paramz.anatomy.axes import Axes
from paramz.reparam.maps.flat import isometry_scale, nearest_isometry, require_matrix
from paramz.reparam.recipe import Scaling

# W = c Q(v) with dQ of dv's size, so v has the rule of W / c. Decay of v would pull Q towards where
# it started.
_KEPT = Scaling(
    "weight",
    size=lambda std, larger: 1 / (std * larger ** Fraction(1, 2)),
    branch=False,
    decays=False,
)


@dataclass(frozen=True)
class Orthogonal:
    """W = c Q with Q orthogonal (rows or columns orthonormal, whichever are fewer), as a recipe.

    Lezcano-Casado and Martinez-Rubio 2019 (arXiv 1901.08428), by
    ``torch.nn.utils.parametrizations.orthogonal``. Q starts as the isometry nearest to the weight.

    Attributes:
        gain: c = gain sqrt(d_out/d_in), which keeps the RMS of activations at gain 1 (Yang, Simon
            and Bernstein 2023, arXiv 2310.17813). None keeps the weight's variance: under muP this
            is the same factor with the base model's gain.
        method: ``matrix_exp`` or ``cayley``. torch's third, ``householder``, its default for
            matrices that are not square, keeps signs in v that any weight decay turns into zeros.
    """

    gain: float | None = None
    method: Literal["matrix_exp", "cayley"] = "matrix_exp"

    def __post_init__(self) -> None:
        if self.method not in ("matrix_exp", "cayley"):
            raise ValueError(f"Orthogonal(method={self.method!r}): it is matrix_exp or cayley")

    @property
    def tensors(self) -> tuple[str, ...]:
        """What Q is computed from; torch's map; c."""
        return ("v", "map", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of v."""
        return {"v": _KEPT}

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """Raises ValueError for anything but a matrix (out, in)."""
        require_matrix(module, name, axes, "an orthogonal weight")
        return self

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """Start at the nearest isometry."""
        holder = nn.Module()
        # torch looks at values here, which a weight on meta has none of.
        near = torch.eye(*weight.shape) if weight.is_meta else nearest_isometry(weight)
        holder.weight = nn.Parameter(near)
        parametrizations.orthogonal(holder, "weight", self.method)
        holder.to(weight.device)
        v = holder.get_parameter("parametrizations.weight.original").detach()
        if self.gain is None:
            scale = isometry_scale(weight)
        else:
            scale = weight.new_tensor(self.gain * math.sqrt(weight.shape[0] / weight.shape[1]))
        return {"v": v, "map": holder.get_submodule("parametrizations.weight.0"), "scale": scale}

    def weight(self, v: Tensor, kept: Any, scale: Tensor) -> Tensor:
        """The weight."""
        made: Tensor = kept.forward(v) * scale
        return made
