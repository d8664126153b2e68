"""Layers with unit_scaling's signatures: those of `paramz.nn`, with typed parameters.

Each is a subclass of paramz.nn's layer where there is one, so `paramz.nn.unit_plan`,
`paramz.nn.fp8_` and `paramz.nn.fold_scales_` work on models that are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paramz import nn as pnn
from paramz.compat.unit_scaling import functional as U
from paramz.compat.unit_scaling._linear_maps import conv_factors, linear_factors
from paramz.compat.unit_scaling._options import not_supported
from paramz.compat.unit_scaling.parameter import KeepsTypes, MupType, Parameter


class GELU(nn.GELU):
    """`paramz.compat.unit_scaling.functional.gelu` as a module."""

    def __init__(
        self,
        mult: float = 1.0,
        constraint: str | None = "to_output_scale",
        approximate: str = "none",
    ) -> None:
        super().__init__(approximate)
        self.mult, self.constraint = mult, constraint

    def forward(self, input: Tensor) -> Tensor:
        """Entry by entry."""
        return U.gelu(input, self.mult, self.constraint, self.approximate)


class SiLU(nn.SiLU):
    """`paramz.compat.unit_scaling.functional.silu` as a module."""

    def __init__(
        self,
        mult: float = 1.0,
        constraint: str | None = "to_output_scale",
        inplace: bool = False,
    ) -> None:
        not_supported("SiLU", inplace=(inplace, False))
        super().__init__()
        self.mult, self.constraint = mult, constraint

    def forward(self, input: Tensor) -> Tensor:
        """Entry by entry."""
        return U.silu(input, self.mult, self.constraint)


class Softmax(nn.Softmax):
    """`paramz.compat.unit_scaling.functional.softmax` as a module."""

    def __init__(
        self, dim: int, mult: float = 1.0, constraint: str | None = "to_output_scale"
    ) -> None:
        super().__init__(dim)
        self.mult, self.constraint = mult, constraint

    def forward(self, input: Tensor) -> Tensor:
        """Over the axis ``dim``."""
        assert self.dim is not None
        return U.softmax(input, self.dim, constraint=self.constraint, mult=self.mult)


class Dropout(nn.Dropout):
    """`paramz.compat.unit_scaling.functional.dropout` as a module."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        not_supported("Dropout", inplace=(inplace, False))
        super().__init__(p)

    def forward(self, input: Tensor) -> Tensor:
        """Entry by entry."""
        return U.dropout(input, self.p, self.training)


class Linear(KeepsTypes, pnn.Linear):
    """A linear layer; its weight starts at N(0, 1), and it has no bias by default.

    Args:
        in_features, out_features, bias, device, dtype: as for ``nn.Linear``.
        constraint: between the factors of the output and of the input's gradient.
        weight_mup_type: see `paramz.compat.unit_scaling.Parameter`.

    >>> Linear(4, 8).weight.mup_type
    'weight'
    """

    _power = 0.5  # of 1/fan_in

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        constraint: str | None = "to_output_scale",
        weight_mup_type: MupType = "weight",
    ) -> None:
        powers = (self._power, 0.5, 0.5)
        super().__init__(
            in_features,
            out_features,
            bias,
            scale=linear_factors(in_features, out_features, constraint, powers),
            device=device,
            dtype=dtype,
        )
        self.constraint = constraint
        _type_weight_and_bias_(self, weight_mup_type)


class LinearReadout(Linear, pnn.Readout):
    """The last linear layer, with 1/fan_in in front.

    Args:
        in_features, out_features, bias, device, dtype, constraint, weight_mup_type: as for
            `Linear`.

    >>> LinearReadout(4, 8).weight.mup_type
    'output'
    """

    _power = 1.0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        constraint: str | None = None,
        weight_mup_type: MupType = "output",
    ) -> None:
        super().__init__(
            in_features, out_features, bias, device, dtype, constraint, weight_mup_type
        )


class Conv1d(KeepsTypes, pnn.Conv1d):
    """A convolution over one axis; its weight starts at N(0, 1), and it has no bias by default.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as for ``nn.Conv1d``, sizes as single integers.
        constraint: between the factors of the output and of the input's gradient.
        weight_mup_type: see `paramz.compat.unit_scaling.Parameter`.

    >>> Conv1d(4, 8, 3).weight.shape
    torch.Size([8, 4, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        constraint: str | None = "to_output_scale",
        weight_mup_type: MupType = "weight",
    ) -> None:
        if not isinstance(padding, int):
            raise ValueError(f"padding={padding!r}: only an integer is supported")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            scale=conv_factors(in_channels, out_channels, kernel_size, stride, groups, constraint),
            device=device,
            dtype=dtype,
        )
        self.constraint = constraint
        _type_weight_and_bias_(self, weight_mup_type)


class LayerNorm(KeepsTypes, pnn.LayerNorm):
    """Layer norm, without gain and bias by default.

    Args:
        normalized_shape, eps, elementwise_affine, bias, device, dtype: as for ``nn.LayerNorm``.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float = 1e-5,
        elementwise_affine: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)
        _type_weight_and_bias_(self, "norm")


class RMSNorm(KeepsTypes, pnn.RMSNorm):
    """RMS norm, without a gain by default.

    Args:
        normalized_shape: of the last axes, which are normalised together.
        eps: added to the mean of squares.
        elementwise_affine: have a gain.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = False,
    ) -> None:
        shape = normalized_shape if isinstance(normalized_shape, int) else list(normalized_shape)
        super().__init__(shape, eps, elementwise_affine)
        _type_weight_and_bias_(self, "norm")


class Embedding(KeepsTypes, pnn.Embedding):
    """A lookup table; its entries start at N(0, 1).

    Args:
        num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            device, dtype: as for ``nn.Embedding``; frequencies and sparse gradients are refused.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        not_supported(
            "Embedding", scale_grad_by_freq=(scale_grad_by_freq, False), sparse=(sparse, False)
        )
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            _weight=_weight,
            _freeze=_freeze,
            device=device,
            dtype=dtype,
        )
        _type_weight_and_bias_(self, "weight")


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """`paramz.compat.unit_scaling.functional.cross_entropy` as a module.

    Args:
        mult: factor on the logits.
        weight, size_average, ignore_index, reduce, reduction, label_smoothing: as for
            ``nn.CrossEntropyLoss``; what has no unit-scaled form is refused.
    """

    def __init__(
        self,
        mult: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        not_supported(
            "CrossEntropyLoss",
            weight=(weight, None),
            size_average=(size_average, None),
            reduce=(reduce, None),
            label_smoothing=(label_smoothing, 0.0),
        )
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.mult = mult

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (n, classes)."""
        return U.cross_entropy(
            input,
            target,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            mult=self.mult,
        )


def _type_weight_and_bias_(module: nn.Module, weight: MupType) -> None:
    types: dict[str, MupType] = {"weight": weight, "bias": "bias"}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            typed = Parameter(parameter.data, types[name])
            typed.requires_grad_(parameter.requires_grad)
            module._parameters[name] = typed
