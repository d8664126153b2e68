"""A task: what a training function and a coordinate check both need to know of a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from paramz.anatomy.branches import Branches
from paramz.plan.roles import Overrides


def default_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The loss of common batch forms, a scalar.

    A mapping is passed as keyword arguments and the model returns an object with ``.loss``, as
    Hugging Face models do. A pair ``(x, y)`` means cross-entropy of ``model(x)`` against class
    indices ``y``, or mean squared error where ``y`` is of floating point.

    Raises:
        TypeError: the batch has another form.
    """
    if isinstance(batch, Mapping):
        loss: torch.Tensor = model(**batch).loss
        return loss
    if isinstance(batch, tuple | list) and len(batch) == 2:
        x, y = batch
        out = model(x)
        out = getattr(out, "logits", out)
        if y.is_floating_point():
            return F.mse_loss(out, y)
        return F.cross_entropy(out.reshape(-1, out.shape[-1]).float(), y.reshape(-1))
    raise TypeError(
        f"a batch of {type(batch).__name__}: give a pair (inputs, targets), a mapping for a "
        "Hugging Face model, or your own loss=f(model, batch)"
    )


@dataclass(frozen=True)
class Task:
    """A model of any width, its data and its loss.

    Attributes:
        build: ``width -> model``, freshly initialised from torch's random state; with a keyword
            ``depth`` or ``experts`` where those are to be scaled, too.
        batch: ``step -> batch``, the same batch whenever it is asked for the same step.
        loss: ``(model, batch) -> scalar``.
        roles: overrides of tensor roles, for models that need them.
        branches: where the residual branches are, for models that need it under a depth scheme.
    """

    build: Callable[..., nn.Module]
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], torch.Tensor] = default_loss
    roles: Overrides = field(default_factory=dict)
    branches: Branches | None = None
