"""The part of the change of a module's output that its own weights made."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from paramz.apply.outputs import activations
from paramz.check.noise import RandomState
from paramz.check.values import copied, size
from paramz.reparam.modules import Reparametrized, part_names

COMPUTING = "parametrizations"
"""The child in which torch.nn.utils.parametrize keeps what computes a module's weights."""


@dataclass(frozen=True)
class Call:
    """What a module was called with: before its hooks, and before it could change any of it."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    random: RandomState | None

    @classmethod
    def of(cls, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """The call that is about to be made. A layer of torch needs no copy: it changes nothing."""
        if not _is_torch_s(module):
            args, kwargs = copied(tuple(args)), copied(dict(kwargs))
        calm = _is_torch_s(module) and not isinstance(module, nn.RNNBase | nn.MultiheadAttention)
        return cls(args, kwargs, None if calm else RandomState.now())


def weight_makers(module: nn.Module) -> list[str]:
    """The names of a module's children that compute its weights: torch's, or a recipe's parts."""
    children = dict(module.named_children())
    torch_s = [COMPUTING] if COMPUTING in children and is_parametrized(module) else []
    return torch_s + [name for name in sorted(part_names(module)) if name in children]


def own_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that a module itself computes with: name in it -> parameter."""
    own = {name: p for name, p in module._parameters.items() if p is not None}
    for child in weight_makers(module):
        found = module.get_submodule(child).named_parameters(prefix=child)
        own.update(found)
    return own


def own_update(
    module: nn.Module,
    weights: Mapping[str, nn.Parameter],
    old: Mapping[str, torch.Tensor],
    call: Call,
    seen: torch.Tensor | None,
    output: torch.Tensor,
) -> torch.Tensor | None:
    """RMS of a module's output less what its weights of before make of the same input.

    Args:
        module: the module, which has just been called.
        weights: what it computes with: name in it -> parameter.
        old: name of such a weight -> value before.
        call: what it was called with.
        seen: what its own code got, behind all hooks on its input.
        output: what came out.

    Returns:
        None if the output cannot be compared: it has another shape.
    """
    plain = type(module) is nn.Linear and "weight" in old and old.keys() <= {"weight", "bias"}
    if plain and seen is not None and len(module._forward_hooks) == 1:
        assert isinstance(module, nn.Linear)  # Its one hook is the recording's: it scales nothing.
        return _linear_update(module, old, seen)
    before = _rerun(module, weights, old, call)
    if before is None or before.shape != output.shape:
        return None
    return size(output.detach() - before)


def _linear_update(
    module: nn.Linear, old: Mapping[str, torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """RMS of (W - W_start) x + (b - b_start), on about 256 rows evenly spread over the batch.

    Half of a check's work would be this if it were taken over all rows.
    """
    rows = x.detach().flatten(0, -2) if x.dim() > 1 else x.detach()[None]
    rows = rows[:: max(1, len(rows) // 256)]
    bias = None if "bias" not in old else module.bias.detach() - old["bias"]
    return size(nn.functional.linear(rows, module.weight.detach() - old["weight"], bias))


def _rerun(
    module: nn.Module,
    weights: Mapping[str, nn.Parameter],
    old: Mapping[str, torch.Tensor],
    call: Call,
) -> torch.Tensor | None:
    """The module's output, hooks included, on the same input at other weights."""
    with torch.no_grad(), _holding(weights, old):
        twin = module if _is_torch_s(module) else _twin(module)
        if call.random is None:
            output = twin(*call.args, **call.kwargs)
        else:
            with call.random.again():
                output = twin(*call.args, **call.kwargs)
    return next(activations(output), None)


@contextmanager
def _holding(own: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let parameters hold other values for a while.

    The tensors themselves stay, since nn.LSTM and others keep more references to them.
    """
    saved = {name: p.data for name, p in own.items()}
    try:
        for name, p in own.items():
            p.data = values[name]
        yield
    finally:
        for name, p in own.items():
            p.data = saved[name]


def _twin(module: nn.Module) -> nn.Module:
    """The module again with the same parameters and its own copies of buffers, caches and counters.

    One that holds what cannot be copied, such as a tensor with a graph, stands for itself.
    """
    try:
        return copy.deepcopy(module, {id(p): p for p in module.parameters()})
    except (RuntimeError, TypeError):
        return module


def _is_torch_s(module: nn.Module) -> bool:
    kind = type(module).plain if isinstance(module, Reparametrized) else type(module)
    return kind.__module__.startswith("torch.nn.modules.")
