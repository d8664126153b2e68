"""Compute weights once for several forward and backward passes: gradient accumulation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from paramz.reparam.modules import computed, parts_of

_HELD = "held_weights"


@contextmanager
def computed_once(model: nn.Module) -> Iterator[None]:
    """Compute the weights of a reparametrized model once for all passes inside.

    With n micro-batches W is computed once, not n times, and so is the way back from its gradient
    to what it is computed from. The gradients are those of n passes, added up in another order.
    Under DistributedDataParallel all passes but the last belong in its ``no_sync()``, as always
    with accumulation: gradients are averaged once, at the end, and it raises if they are not.

    Args:
        model: under `paramz.reparametrize_`.

    Raises:
        ValueError: nothing in the model is reparametrized, or it is inside already.
        RuntimeError: an optimizer takes a step inside: W would go on to be that of before.

    >>> import paramz
    >>> model = nn.Linear(4, 2)
    >>> paramz.reparametrize_(model, paramz.WeightNorm())
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with paramz.reparam.computed_once(model):
    ...     for _ in range(4):
    ...         (model(torch.ones(3, 4)).square().mean() / 4).backward()
    >>> optimizer.step()
    """
    found = [(module, name, recipe) for _, module, name, recipe in computed(model)]
    _refuse(model, [module for module, _, _ in found])
    # A module that is in the model twice is one module.
    once = {(id(module), name): (module, name, recipe) for module, name, recipe in found}
    with torch.enable_grad():  # whatever the mode around: a pass inside may want gradients
        weights = {key: getattr(module, name) for key, (module, name, _) in once.items()}
    leaves = {key: w.detach().requires_grad_(w.requires_grad) for key, w in weights.items()}
    for key, (module, name, _) in once.items():
        vars(module).setdefault(_HELD, {})[name] = leaves[key]
    parts = [part for entry in once.values() for part in parts_of(*entry).values()]
    hook = register_optimizer_step_pre_hook(_no_steps(parts))
    try:
        yield
    finally:
        hook.remove()
        for module, _, _ in once.values():
            vars(module).pop(_HELD, None)
    moved = [key for key, leaf in leaves.items() if leaf.grad is not None]
    torch.autograd.backward([weights[key] for key in moved], [leaves[key].grad for key in moved])


def _refuse(model: nn.Module, modules: list[nn.Module]) -> None:
    if not modules:
        raise ValueError(f"nothing in this {type(model).__name__} is reparametrized")
    if any(_HELD in vars(module) for module in modules):
        raise ValueError("the weights of this model are held by another computed_once already")


def _no_steps(parts: list[Tensor | nn.Module]) -> Any:
    owned = {id(part) for part in parts}
    owned |= {id(p) for m in parts if isinstance(m, nn.Module) for p in m.parameters()}

    def hook(optimizer: torch.optim.Optimizer, *args: Any) -> None:
        if any(id(p) in owned for group in optimizer.param_groups for p in group["params"]):
            raise RuntimeError(
                f"{type(optimizer).__name__} takes a step inside computed_once, which would go on "
                "with the weights of before it: step after the with block"
            )

    return hook
