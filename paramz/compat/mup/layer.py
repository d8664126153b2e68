"""Readouts that divide by the width multiplier, and the rescaling of fresh initial values.

A readout keeps its width multiplier as a number, so that it runs after deepcopy, pickle, to_empty,
export, and in the replicas of DataParallel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from paramz.compat.mup.tensors import row_of
from paramz.plan.row import Row


class MuReadout(nn.Linear):
    """A linear readout whose input is multiplied by ``output_mult / width_mult``.

    Args:
        *args: of ``nn.Linear``.
        readout_zero_init: start weight and bias at zero.
        output_mult: a hyperparameter that transfers.
        **kwargs: of ``nn.Linear``.

    >>> from paramz.compat.mup import set_base_shapes
    >>> head = set_base_shapes(MuReadout(64, 10), MuReadout(16, 10))
    >>> head.width_mult(), tuple(head(torch.ones(2, 64)).shape)
    (4.0, (2, 10))
    """

    _width_mult: float | None = None

    def __init__(
        self,
        *args: Any,
        readout_zero_init: bool = False,
        output_mult: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.output_mult = output_mult
        self.readout_zero_init = readout_zero_init
        super().__init__(*args, **kwargs)

    def reset_parameters(self) -> None:
        """Initial values of ``nn.Linear``, or zeros."""
        if not self.readout_zero_init:
            super().reset_parameters()
            return
        with torch.no_grad():
            for parameter in (self.weight, self.bias):
                if parameter is not None:
                    parameter.zero_()

    def width_mult(self) -> float:
        """Fan_in / fan_in at the base.

        Raises:
            ValueError: no base shapes are set; the message says what to call.
        """
        if self._width_mult is None:
            ratios = row_of(self.weight).ratios
            self._width_mult = ratios.get("fan_in", ratios.get("fan_out", 1.0))
        return self._width_mult

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Readout of ``input``, (..., in_features) -> (..., out_features)."""
        return super().forward(input * (self.output_mult / self.width_mult()))

    def _rescale_parameters(self) -> None:
        """Take torch's 1/sqrt(fan_in) out of the fresh initial values, but not of a tied weight."""
        _once(self)
        factor = self.width_mult() ** 0.5
        with torch.no_grad():
            if self.bias is not None:
                self.bias.mul_(factor)
            if not row_of(self.weight).readouts:
                self.weight.mul_(factor)


class MuSharedReadout(MuReadout):
    """A `MuReadout` that shares its weight with an embedding.

    The weight keeps the embedding's initial values and learning rate.

    Args:
        weight: of an ``nn.Embedding``, (vocabulary, width).
        bias: with a bias of size vocabulary. (mup's has size width, and works only if both agree.)
        **kwargs: of `MuReadout`.
    """

    def __init__(self, weight: nn.Parameter, bias: bool = True, **kwargs: Any) -> None:
        vocabulary, width = weight.shape
        super().__init__(width, vocabulary, bias=bias, **kwargs)
        self.weight = weight


def rescale_linear_bias(linear: nn.Linear | nn.modules.conv._ConvNd) -> None:
    """Take torch's 1/sqrt(fan_in) out of the fresh bias of a linear or conv layer.

    Raises:
        RuntimeError: it was done before.
        ValueError: no base shapes are set.
    """
    if linear.bias is None:
        return
    _once(linear)
    with torch.no_grad():
        linear.bias.mul_(summed_ratio(row_of(linear.weight)) ** 0.5)


def summed_ratio(row: Row) -> float:
    """Target / base of what a linear layer sums over: fan_in, or the width of a tied embedding."""
    return row.ratios.get("fan_in", row.ratios.get("fan_out", 1.0) if row.readouts else 1.0)


def _once(module: nn.Module) -> None:
    """Raise on a second call, unless the user has reset mup's flag on the module to False."""
    if getattr(module, "_has_rescaled_params", False):
        raise RuntimeError(
            f"the initial values of this {type(module).__name__} were rescaled before. For a "
            "checkpoint, or to set base shapes again, call set_base_shapes(..., "
            "rescale_params=False); to rescale all the same, set its _has_rescaled_params to False."
        )
    module._has_rescaled_params = True  # type: ignore[assignment]
