"""Weights as matrices (outputs, everything else), for maps that are defined on matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes


def output_axis(axes: Axes, what: str) -> int:
    """The axis of a weight's outputs.

    Args:
        axes: of the weight.
        what: what needs it, for the message.

    Raises:
        ValueError: the weight has several axes of outputs, or none.
    """
    if len(axes.fan_out) != 1 or not axes.fan_in:
        raise ValueError(f"{what} is for weights with one axis of outputs; this one has {axes}")
    return axes.fan_out[0]


def require_matrix(module: nn.Module, name: str, axes: Axes, what: str) -> None:
    """Refuse anything but a matrix (out, in), as linear layers have it.

    Args:
        module: the module that has the weight.
        name: the weight's name in it.
        axes: of the weight.
        what: what needs a matrix, for the message.

    Raises:
        ValueError: the weight is something else.
    """
    shape = tuple(getattr(module, name).shape)
    if len(shape) != 2 or axes.fan_out != (0,):
        raise ValueError(
            f"{what} is for matrices (out, in), not for the {name} {shape} of a "
            f"{type(module).__name__}: choose linear layers with where="
        )


def nearest_isometry(weight: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns: U V^T, where W = U S V^T."""
    if weight.is_meta:
        return torch.empty_like(weight)
    u, _, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    nearest: Tensor = (u @ vh).to(weight.dtype)
    return nearest


def isometry_scale(weight: Tensor) -> Tensor:
    """The factor that gives an isometry the weight's variance: |W|_F over sqrt(least size)."""
    size: Tensor = weight.square().sum().sqrt() / min(weight.shape) ** 0.5
    return size
