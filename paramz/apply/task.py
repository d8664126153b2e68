"""A task: model, data and loss, as a training function and a coordinate check both need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from paramz.anatomy.branches import Branches
from paramz.anatomy.factors import Factors
from paramz.apply.outputs import loss_in, prediction
from paramz.apply.parametrize import make_plan, parametrize_
from paramz.nn.residual import Alphas
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides
from paramz.theory.rules import Parametrization


def default_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The loss of common batch forms, a scalar.

    A mapping is passed as keyword arguments, and the model computes the loss itself: it returns an
    object or a mapping with ``loss``, as Hugging Face models do, or a tuple with one scalar, such
    as ``(logits, loss)``. A pair ``(x, y)`` means cross-entropy of ``model(x)`` against class
    indices ``y``, or mean squared error where ``y`` is of floating point; the prediction is
    ``logits`` of what the model returns, or the first tensor in it. Axes of size 1 may be missing
    from targets, as in (N, 1) beside (N,).

    Raises:
        TypeError: the batch has another form, or the model returns no loss.
        ValueError: the prediction and the targets of a pair do not fit together.
    """
    if isinstance(batch, Mapping):
        return loss_in(model(**batch))
    if isinstance(batch, tuple | list) and len(batch) == 2:
        x, y = batch
        out = prediction(model(x))
        if out is None:
            raise TypeError("the model returned no tensor: give your own loss=f(model, batch)")
        if y.is_floating_point():
            return F.mse_loss(_like_targets(out, y), y)
        return _cross_entropy(out.float(), y)
    raise TypeError(
        f"a batch of {type(batch).__name__}: give a pair (inputs, targets), a mapping for a "
        "model that computes its loss, or your own loss=f(model, batch)"
    )


def _like_targets(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Predictions in the shape of their targets; torch would compare each with all of them."""
    sizes, wanted = ([n for n in shape if n != 1] for shape in (out.shape, y.shape))
    if sizes != wanted:
        raise ValueError(
            f"the model's output {tuple(out.shape)} and the targets {tuple(y.shape)} differ in "
            "shape, and a mean squared error wants one target for each number that the model puts "
            "out: give targets of the output's shape, or your own loss=f(model, batch)"
        )
    return out.reshape(y.shape)


def _cross_entropy(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if out.shape[:-1] != y.shape and (out.shape[0], *out.shape[2:]) == y.shape:
        return F.cross_entropy(out, y)  # Classes stand second, as in segmentation.
    if out.numel() != y.numel() * out.shape[-1]:
        raise ValueError(
            f"the model's output {tuple(out.shape)} does not hold one prediction for each of the "
            f"targets {tuple(y.shape)}: if the model computes its loss from targets that it gets, "
            "give the batch as a mapping of its arguments, or give your own loss=f(model, batch)"
        )
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))


@dataclass(frozen=True)
class Task:
    """A model of any width, its data and its loss.

    Attributes:
        build: ``width -> model``, freshly initialised from torch's random state; with a keyword
            ``depth`` or ``experts`` where those are scaled as well.
        batch: ``step -> batch``, the same batch whenever it is asked for the same step.
        loss: ``(model, batch) -> scalar``.
        roles: overrides of tensor roles, for models that need them.
        branches: where the residual branches are, for models that need it under a depth scheme.
        factors: factors in the model's own code, for models that need it.
    """

    build: Callable[..., nn.Module]
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], torch.Tensor] = default_loss
    roles: Overrides = field(default_factory=dict)
    branches: Branches | None = None
    factors: Factors | None = None

    def parametrize_(
        self,
        model: nn.Module,
        parametrization: str | Parametrization,
        *,
        base_width: int,
        base_sizes: Mapping[str, float] | None = None,
        alphas: Alphas | None = None,
    ) -> Plan:
        """`paramz.parametrize_` with what the task knows: build, roles, branches, factors, batch.

        Args:
            model: one of the task's models, freshly built.
            parametrization: a name such as ``"mup"``, or a `Parametrization`.
            base_width: the width of the base.
            base_sizes: what else ``build`` takes for the base, such as ``{"depth": 2}``.
            alphas: u-muP's hyperparameters.

        Raises:
            ValueError: as for `paramz.parametrize_`.
            TypeError: as for `paramz.parametrize_`.

        >>> net = lambda width: nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
        >>> task = Task(net, lambda step: (torch.ones(1, 4), torch.zeros(1, dtype=torch.long)))
        >>> [row.role for row in task.parametrize_(net(32), "mup", base_width=8).rows]
        ['input', 'vector', 'output', 'scalar']
        """
        asked = self._asked(base_width, base_sizes)
        return parametrize_(model, parametrization, alphas=alphas, **asked)

    def make_plan(
        self,
        model: nn.Module,
        parametrization: str | Parametrization,
        *,
        base_width: int,
        base_sizes: Mapping[str, float] | None = None,
    ) -> Plan:
        """`paramz.make_plan` with everything that the task knows; the model stays as it is.

        Args:
            model: one of the task's models; it may be on the meta device.
            parametrization: a name such as ``"mup"``, or a `Parametrization`.
            base_width: the width of the base.
            base_sizes: what else ``build`` takes for the base, such as ``{"depth": 2}``.

        Raises:
            ValueError: as for `paramz.make_plan`.
            TypeError: as for `paramz.make_plan`.
        """
        return make_plan(model, parametrization, **self._asked(base_width, base_sizes))

    def _asked(self, base_width: int, base_sizes: Mapping[str, float] | None) -> dict[str, Any]:
        return {
            "base": partial(self.build, **base_sizes) if base_sizes else self.build,
            "base_width": base_width,
            "roles": self.roles,
            "branches": self.branches,
            "factors": self.factors,
            "example": self.batch(0),
        }
