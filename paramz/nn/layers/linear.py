"""Unit-scaled linear layers. Weights start at N(0, 1), biases at 0.

Each layer carries the factors of its matrix products as data (`Scale`), so whoever composes a block
can fold more into them: `paramz.nn.TransformerDecoder` does, and so does `paramz.nn.unit_scale_`
for a plain model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import IN_OUT
from paramz.nn import functional as U
from paramz.nn.fp8 import Fp8
from paramz.nn.linear import scaled_linear
from paramz.nn.scale import Scale


class Linear(nn.Linear):
    """A linear layer with the factors of ``scale`` in its three matrix products.

    Args:
        in_features: as for ``nn.Linear``.
        out_features: the same.
        bias: the same, but there is none by default.
        scale: the factors; those of a hidden layer (`paramz.nn.functional.linear_scale`) if left
            out.
        fp8: compute in FP8; see `paramz.nn.fp8_`.
        device: of the parameters.
        dtype: of the parameters.

    >>> layer = Linear(64, 128)
    >>> bool(0.9 < layer(torch.randn(256, 64)).std() < 1.1)
    True
    """

    _scale_of: Callable[[int, int], Scale] = staticmethod(U.linear_scale)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        scale: Scale | None = None,
        fp8: Fp8 | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.scale = self._scale_of(in_features, out_features) if scale is None else scale
        self.fp8 = fp8

    def reset_parameters(self) -> None:
        """Weight N(0, 1), bias 0."""
        unit_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return scaled_linear(x, self.weight, self.bias, scale=self.scale, fp8=self.fp8)


class Readout(Linear):
    """The last layer, with 1/fan_in in front; arguments as for `Linear`.

    Its factors are those of `paramz.nn.functional.readout_scale` if left out.
    """

    _scale_of = staticmethod(U.readout_scale)


class Conv1D(nn.Module):
    """`Linear` with its weight stored as (in, out), like the Conv1D of transformers."""

    AXES = {"weight": IN_OUT}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: Scale | None = None,
        fp8: Fp8 | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.nx, self.nf = in_features, out_features
        self.weight = nn.Parameter(torch.randn(in_features, out_features, device=device))
        self.bias = nn.Parameter(torch.zeros(out_features, device=device))
        self.scale = U.linear_scale(in_features, out_features) if scale is None else scale
        self.fp8 = fp8

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return scaled_linear(x, self.weight.t(), self.bias, scale=self.scale, fp8=self.fp8)


def unit_init_(layer: Any) -> None:
    """Draw a layer's weight from N(0, 1) and set its bias, if it has one, to 0."""
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
