"""An optimizer that keeps every matrix on the sphere of its first norm: AdamH, MuonH.

With R the Frobenius norm of a matrix W before the first step, and U the direction in which the
optimizer moves it, a step is

    W <- R V / |V|,    V = W + lr R U / |U|

(Hyperball, arXiv 2606.16899; HyperP, arXiv 2603.28743), so lr is the relative size of every step,
and weight decay has nothing to do. It is done around the optimizer's own step, by torch's hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from paramz.plan.groups import NAMES
from paramz.plan.own_factor import keeps_norms

# Where the state of a tensor holds its first norm, a Python number: state_dict keeps it exactly,
# whereas tensors in a state are cast to the parameter's type when they are loaded.
RADIUS = "radius"

AnyOptimizer = TypeVar("AnyOptimizer", bound=torch.optim.Optimizer)


def constrained(optimizer: AnyOptimizer) -> AnyOptimizer:
    """Keep the matrices of an optimizer at their first Frobenius norm, with steps of relative size.

    The optimizer is changed and returned: schedulers, closures, GradScaler, DDP and state_dict work
    as before, and a run that goes on from a state_dict takes the same steps. A tensor counts as one
    matrix, whatever its number of axes. A copy of the weights lives during each step, and weights
    in less than float32 lose small steps to rounding. A deep copy or a pickle of an optimizer is
    without its hooks, as torch leaves them out: constrain it again.

    Args:
        optimizer: such as ``torch.optim.AdamW(groups)`` (AdamH) or ``torch.optim.Muon(groups)``
            (MuonH), of the groups of a plan for ``"adamh"`` or ``"muonh"``, or of any matrices;
            another optimizer trains vectors, embeddings and the readout.

    Raises:
        ValueError: it holds a tensor that is no matrix or complex, has weight decay (also one that
            is added or loaded later, at its next step) or is constrained already; and at its first
            step, a matrix is all zeros.

    >>> import paramz
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Linear(w, w), nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> hidden, rest = plan.split_groups(model, adamh=dict(lr=0.02), adamw=dict(lr=0.002))
    >>> optimizers = constrained(torch.optim.AdamW(hidden)), torch.optim.AdamW(rest)
    >>> before = model[1].weight.norm().item()
    >>> model(torch.ones(1, 4)).sum().backward()
    >>> optimizers[0].step()
    >>> abs(model[1].weight.norm().item() / before - 1) < 1e-6
    True
    """
    if keeps_norms(optimizer):
        raise ValueError(f"this {type(optimizer).__name__} keeps its matrices' norms already")
    _require_matrices_without_decay(optimizer)
    sphere = _Sphere()
    optimizer.register_step_pre_hook(sphere.remember)
    optimizer.register_step_post_hook(sphere.project)
    return optimizer


class _Sphere:
    """What is done before and after a step."""

    keeps_norms = True  # read by paramz.plan.own_factor

    def __init__(self) -> None:
        self._before: dict[nn.Parameter, torch.Tensor] = {}

    @torch.no_grad()
    def remember(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Copy the matrices, and refuse those without a norm to keep."""
        _require_matrices_without_decay(optimizer)  # of groups that were added, or a state loaded
        for name, p in _named(optimizer):
            if RADIUS not in optimizer.state.get(p, {}) and not p.any():
                raise ValueError(
                    f"{name} {tuple(p.shape)} is all zeros, so it has no norm to keep and would "
                    "never move: draw it at random, or give it to another optimizer"
                )
        self._before = {p: p.detach().clone() for _, p in _named(optimizer)}

    @torch.no_grad()
    def project(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Replace each step by one of size lr R, and go back to the sphere."""
        for group in optimizer.param_groups:
            for p in group["params"]:
                # An optimizer has to make the state of a tensor itself, at its first gradient.
                if p.grad is None or p not in self._before:
                    continue
                exact = torch.promote_types(p.dtype, torch.float32)
                start = self._before[p].to(exact)
                if RADIUS not in optimizer.state[p]:  # reading it waits for an accelerator
                    optimizer.state[p][RADIUS] = float(start.norm())
                radius = optimizer.state[p][RADIUS]
                move = p.to(exact) - start
                size = move.norm()
                aim = start + move * (group["lr"] * radius / size)
                # No move is none: a rate of zero, or a step that GradScaler has skipped. What is
                # not finite stays so: a matrix that stood still for it would never move again.
                p.copy_(torch.where(size == 0, start, aim * (radius / aim.norm())))
        self._before = {}


def _named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """All tensors, by the plan's names, or by group and place."""
    for i, group in enumerate(optimizer.param_groups):
        names = group.get(NAMES, [])
        for k, p in enumerate(group["params"]):
            yield names[k] if k < len(names) else f"tensor {k} of group {i}", p


def _require_matrices_without_decay(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        if group.get("weight_decay"):
            raise ValueError(
                f"weight_decay={group['weight_decay']:g}: the norm of every matrix is kept, so "
                "decay would only turn its steps; pass weight_decay=0 (Muon and AdamW have another "
                "default, and a state_dict brings that of its groups)"
            )
    for name, p in _named(optimizer):
        if p.is_complex():
            raise ValueError(
                f"{name} {tuple(p.shape)} is complex, and norms are kept of real matrices: give it "
                "to another optimizer"
            )
        if p.ndim < 2:
            raise ValueError(
                f"{name} {tuple(p.shape)} is no matrix, and only matrices are to keep their norm: "
                "give the rest to another optimizer, as in plan.split_groups(model, "
                "adamh=dict(lr=...), adamw=dict(lr=...))"
            )
