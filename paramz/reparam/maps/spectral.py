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

# v starts as W, so W's learning rate is right for it. W does not depend on the length of v, so v
# has no weight decay.
_SCALINGS = {"v": Scaling("weight", branch=True, decays=False)}


@dataclass(frozen=True)
class SpectralNorm:
    """A recipe for W = c v / sigma(v), where sigma is the largest singular value.

    Miyato et al. 2018 (arXiv 1802.05957), by ``torch.nn.utils.parametrizations.spectral_norm``. The
    norm that keeps the RMS of activations is sqrt(d_out/d_in) (Yang, Simon and Bernstein 2023,
    arXiv 2310.17813, condition 1), and c is ``gain`` times that. Kernels of convolutions count as
    matrices (outputs, inputs times positions), whose norm is not that of the convolution.

    Attributes:
        gain: c over sqrt(d_out/d_in). None keeps the norm of the weight, and so the function of the
            model; in a model that `paramz.parametrize_` has put under muP that norm includes muP's
            factor.
        iterations: power iterations per forward pass in train mode.
        dim: the axis of outputs; `bind` sets it.
    """

    gain: float | None = None
    iterations: int = 1
    dim: int = 0

    @property
    def tensors(self) -> tuple[str, ...]:
        """v, of the shape of the weight; torch's map with its vectors; c."""
        return ("v", "map", "scale")

    @property
    def scalings(self) -> Mapping[str, Scaling]:
        """The rule of v."""
        return _SCALINGS

    def bind(self, module: nn.Module, name: str, axes: Axes) -> Self:
        """The recipe with the axis of the weight's outputs.

        Raises:
            ValueError: the weight has several axes of outputs, or none.
        """
        return replace(self, dim=output_axis(axes, "spectral normalization"))

    def split(self, weight: Tensor) -> dict[str, Tensor | nn.Module]:
        """The weight as v, and torch's map, which starts at the weight's singular vectors."""
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
        """Compute the weight; in train mode this continues the power iteration."""
        made: Tensor = kept.forward(v) * scale
        return made
