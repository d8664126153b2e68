"""Clip gradients by their global norm, measured as the base model would measure it.

Under muP the norm of a gradient depends on width tensor by tensor: that of a hidden matrix stays,
that of an embedding falls like width^-1/2 and that of the readout grows like width^1/2. A threshold
tuned at the base then means something else at the target, and the readout decides alone.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from paramz.plan.matching import trainable_rows
from paramz.plan.plan import Plan
from paramz.plan.row import Row
from paramz.theory.families import ADAMW
from paramz.theory.power import ONE


def clip_grad_norm_(plan: Plan, model: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale all gradients so that their global norm, in units of the base model, is at most this.

    Args:
        plan: the model's plan.
        model: the model, wrapped or sharded or not, after ``backward``.
        max_norm: the threshold tuned at the base; ``inf`` only measures.

    Returns:
        the norm before clipping, in units of the base: sqrt(sum (|g| / r)^2) with r the ratio that
        the plan expects between a tensor's gradient norms at target and base. At the base it is the
        plain global norm.

    Raises:
        ValueError: the plan's scheme has no rule for the size of gradients (SP, u-muP), or the
            model has a tensor that the plan does not know.

    >>> import paramz
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> model(torch.ones(1, 4)).sum().backward()
    >>> before = clip_grad_norm_(plan, model, 1e-3)
    >>> f"{clip_grad_norm_(plan, model, 1e-3):.4g}"
    '0.001'
    """
    by_ratio: dict[float, list[torch.Tensor]] = {}
    parameters = []
    for row, parameter in trainable_rows(plan.rows, model):
        ratio = gradient_ratio(plan, row)
        if parameter.grad is not None:
            by_ratio.setdefault(ratio, []).append(parameter.grad)
            parameters.append(parameter)
    if not parameters:
        return torch.zeros(())
    norms = [_whole(nn.utils.get_total_norm(grads)) / ratio for ratio, grads in by_ratio.items()]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    nn.utils.clip_grads_with_norm_(parameters, max_norm, total)
    return total


def gradient_ratio(plan: Plan, row: Row) -> float:
    """Norm of a tensor's gradient, target / base, as the plan expects it.

    It is the size of an entry, which the rule for Adam's epsilon follows, times the square root of
    the number of entries.

    Raises:
        ValueError: the scheme has no rule for the size of gradients.
    """
    scheme = plan.parametrization
    if scheme.rule("adam", "hidden").eps == ONE:
        raise ValueError(
            f"{scheme.name} has no rule for the size of gradients, so their norm is not known in "
            "units of the base: use torch.nn.utils.clip_grad_norm_"
        )
    entry = plan.rule(row, ADAMW).eps(row.ratios)
    return entry * math.sqrt(math.prod(row.shape) / math.prod(row.base_shape))


def _whole(norm: torch.Tensor) -> torch.Tensor:
    """A sharded tensor's norm over all shards."""
    full = getattr(norm, "full_tensor", None)
    whole: torch.Tensor = norm if full is None else full()
    return whole
