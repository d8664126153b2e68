"""Spectral normalization: a weight of fixed operator norm, with torch's own power iteration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from paramz.anatomy.axes import Axes
from paramz.reparam.maps.flat import output_axis
from paramz.reparam.recipe import Scaling

# The length of v means nothing: it starts as W, whose learning rate is right for it then.
_SCALINGS = {"v": Scaling("weight", branch=True, decays=False)}


@dataclass(frozen=True)
class SpectralNorm:
    """W = c v / sigma(v), with sigma the largest singular value, as a recipe.

    Miyato et al. 2018 (arXiv 1802.05957), by ``torch.nn.utils.parametrizations.spectral_norm``. The
    norm that keeps the RMS of activations is sqrt(d_out/d_in) (Yang, Simon and Bernstein 2023,
    arXiv 2310.17813, condition 1), and c is ``gain`` times that. Kernels count as matrices
    (outputs, inputs times positions), whose norm is not that of the convolution.

    Attributes:
        gain: of the norm; None keeps the norm that the weight has, and the function with it. A
            weight that `parametrize_` has put under muP has the factor then.
        iterations: power iterations per forward pass in train mode.
        dim: the axis of outputs; found from the layer.
    """

    gain: float | None = None
    iterations: int = 1
    dim: int = 0

    @property
    def tensors(self) -> tuple[str, ...]:
        """Of the weight's shape v; torch's map with its vectors; c."""
        return ("v", "map", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of v."""
        return _SCALINGS

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """Find the axis of outputs; raises ValueError where there is not one."""
        return replace(self, dim=output_axis(axes, "spectral normalization"))

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """Take v from the weight, and its singular vectors where the iteration starts."""
        holder = nn.Module()
        holder.weight = nn.Parameter(weight.clone())
        parametrizations.spectral_norm(holder, "weight", self.iterations, dim=self.dim)
        kept = holder.get_submodule("parametrizations.weight.0")
        matrix = weight.movedim(self.dim, 0).flatten(1)
        if self.gain is not None:
            d_out, d_in = matrix.shape
            scale = weight.new_tensor(self.gain * math.sqrt(d_out / d_in))
        else:
            scale = torch.linalg.matrix_norm(matrix.double(), 2).to(weight.dtype)
        if not weight.is_meta:
            u, _, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
            kept.get_buffer("_u").copy_(u[:, 0])
            kept.get_buffer("_v").copy_(vh[0])
        return {"v": weight.clone(), "map": kept, "scale": scale}

    def weight(self, v: Tensor, kept: Any, scale: Tensor) -> Tensor:
        """The weight; in train mode the iteration goes on."""
        made: Tensor = kept.forward(v) * scale
        return made
