"""Orthogonal weights: orthonormal rows or columns times a factor, with torch's own maps."""

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

# W = c Q(v), and a change of v changes Q by as much, so v has the rule of W / c. Decay of v would
# pull Q towards where it started.
_KEPT = Scaling(
    "weight",
    size=lambda std, larger: 1 / (std * larger ** Fraction(1, 2)),
    branch=False,
    decays=False,
)


@dataclass(frozen=True)
class Orthogonal:
    """A recipe for W = c Q, where the rows or the columns of Q are orthonormal.

    These are the rows if there are fewer rows than columns, and else the columns.
    Lezcano-Casado and Martinez-Rubio 2019 (arXiv 1901.08428), by
    ``torch.nn.utils.parametrizations.orthogonal``. Q starts as the isometry nearest to the weight.

    Attributes:
        gain: c = gain sqrt(d_out/d_in), which at gain 1 keeps the RMS of activations (Yang, Simon
            and Bernstein 2023, arXiv 2310.17813). None keeps the weight's variance; under muP that
            is the same c, with the base model's gain.
        method: ``matrix_exp`` or ``cayley``. torch has a third, ``householder``, which is its
            default for matrices that are not square. It is left out here because it keeps signs in
            v, which any weight decay turns into zeros.
    """

    gain: float | None = None
    method: Literal["matrix_exp", "cayley"] = "matrix_exp"

    def __post_init__(self) -> None:
        if self.method not in ("matrix_exp", "cayley"):
            raise ValueError(
                f"Orthogonal(method={self.method!r}): the method must be matrix_exp or cayley"
            )

    @property
    def tensors(self) -> tuple[str, ...]:
        """v, which Q is computed from; torch's map; c."""
        return ("v", "map", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of v."""
        return {"v": _KEPT}

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe itself, which fits every matrix (out, in).

        Raises:
            ValueError: the weight is not such a matrix.
        """
        require_matrix(module, name, axes, "an orthogonal weight")
        return self

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The v of the isometry nearest to the weight, torch's map, and c."""
        if weight.is_meta:
            v, kept = self._without_values(weight)
        else:
            v, kept = self._map(nearest_isometry(weight))
        if self.gain is None:
            scale = isometry_scale(weight)
        else:
            scale = weight.new_tensor(self.gain * math.sqrt(weight.shape[0] / weight.shape[1]))
        return {"v": v, "map": kept, "scale": scale}

    def _map(self, near: Tensor) -> tuple[Tensor, nn.Module]:
        """The v of an isometry, and torch's map."""
        holder = nn.Module()
        holder.weight = nn.Parameter(near)
        parametrizations.orthogonal(holder, "weight", self.method)
        v = holder.get_parameter("parametrizations.weight.original").detach()
        return v, holder.get_submodule("parametrizations.weight.0")

    def _without_values(self, weight: Tensor) -> tuple[Tensor, nn.Module]:
        """The same for a weight on the meta device.

        torch looks at the values, and a device context reaches into what it makes: so the map is
        made for one number on the CPU, and gets the weight's sizes afterwards.
        """
        with torch.device("cpu"):
            _, kept = self._map(torch.eye(1))
        larger = max(weight.shape)
        kept.base = weight.new_empty(larger, larger)
        return torch.empty_like(weight), kept

    def weight(self, v: Tensor, kept: Any, scale: Tensor) -> Tensor:
        """Compute the weight."""
        made: Tensor = kept.forward(v) * scale
        return made
