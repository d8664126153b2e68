"""The control run of models with maps that start faint: the same steps with those maps at zero.

A map into a bottleneck starts like a readout, so what it adds to the model before training fades as
width^-1/2. The models of a check then differ by more than their width: in the narrow ones more goes
through those maps, and with it gradients and updates all over the model move towards their limit.
With the maps at zero all widths start as the limit does (Yang et al. 2022, TP-V, appendix D.2, of
readouts), and what shrinks there, too, shrinks by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from paramz.analysis.faint import FAINT
from paramz.apply.pieces import slice_views
from paramz.check.jobs import CheckJob
from paramz.check.optimizers import optimizers_for
from paramz.check.recording import Record, recording
from paramz.check.values import Slices
from paramz.optim.make import Measuring
from paramz.plan.plan import Plan


def has_faint(plan: Plan) -> bool:
    """Whether a tensor of the plan, or some rows of one, is a map that starts faint."""
    return any(FAINT in (row.role, *(part.role for part in row.slices)) for row in plan.rows)


def _faint_weights(model: nn.Module, plan: Plan) -> list[torch.Tensor]:
    found = []
    for row in plan.rows:
        weight = model.get_parameter(row.name).detach()
        if row.role == FAINT:
            found.append(weight)
        faint = (part for part in row.slices if part.role == FAINT)
        found += [view for part in faint for view in slice_views(weight, part)]
    return found


def updates_from_zero(
    model: nn.Module,
    plan: Plan,
    job: CheckJob,
    lr: float,
    forward: Callable[[], torch.Tensor],
    first: Record,
    slices: Mapping[str, Slices],
) -> dict[str, float]:
    """The own updates of modules, as in the check, of a model whose faint maps start at zero.

    Args:
        model: as it starts; trained afterwards.
        plan: its plan.
        job: how it is trained.
        lr: the base learning rate.
        forward: gives the loss.
        first: what the check recorded before training.
        slices: what is recorded of outputs beside the whole.
    """
    for weight in _faint_weights(model, plan):
        weight.zero_()
    start = copy.deepcopy(model.state_dict())
    optimizers = optimizers_for(plan, model, job, lr)
    for _ in range(job.steps):
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(forward())
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad(), recording(model, first, start=start, slices=slices) as now:
        forward()
    for optimizer in optimizers:
        if isinstance(optimizer, Measuring):
            optimizer.close()
    return now.updates
