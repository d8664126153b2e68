"""Losses with unit_scaling's signatures."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from paramz.compat.unit_scaling._options import not_supported
from paramz.nn.scale import scale


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    mult: float = 1.0,
) -> Tensor:
    """Cross-entropy of ``mult * input``, (n, classes) or (classes,), with a unit gradient.

    The mean is over all rows, ignored ones included; the gradient is that of the sum, times
    classes / sqrt(classes - 1), and without mult.

    Raises:
        ValueError: an option that has no unit-scaled form, or a shape of more axes.

    >>> import torch
    >>> round(cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 2])).item(), 4)
    1.3863
    """
    not_supported(
        "cross_entropy",
        weight=(weight, None),
        size_average=(size_average, None),
        reduce=(reduce, None),
        label_smoothing=(label_smoothing, 0.0),
    )
    if input.dim() not in (1, 2):
        raise ValueError(
            f"cross_entropy input shape is {tuple(input.shape)}, but should be either "
            "(vocab_size,) or (batch_size, vocab_size): flatten the leading axes"
        )
    classes = input.shape[-1]
    logits = input if mult == 1 else input * mult
    total = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum")
    backward = classes / math.sqrt(classes - 1) / mult
    return scale(total, _mean_factor(reduction, input.numel() // classes), backward)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean squared error, with the sum's gradients times 1/sqrt(8).

    Raises:
        ValueError: the shapes differ, or an option that has no unit-scaled form.

    >>> import torch
    >>> mse_loss(torch.zeros(2), torch.ones(2)).item()
    1.0
    """
    not_supported("mse_loss", size_average=(size_average, None), reduce=(reduce, None))
    if input.shape != target.shape:
        raise ValueError(
            "U.mse_loss requires input.shape == target.shape, actual input.shape="
            f"{tuple(input.shape)}, target.shape={tuple(target.shape)}"
        )
    total = F.mse_loss(input, target, reduction="sum")
    return scale(total, _mean_factor(reduction, input.numel()), 8**-0.5)


def _mean_factor(reduction: str, count: int) -> float:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction={reduction!r} has no unit-scaled form: use 'mean' or 'sum'")
    return 1 / count if reduction == "mean" else 1.0
