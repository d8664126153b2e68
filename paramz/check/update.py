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
from paramz.check.aligned import aligned_share, random_part
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
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """RMS of a module's output less what its weights of before make of the same input.

    Args:
        module: the module, which has just been called.
        weights: what it computes with: name in it -> parameter.
        old: name of such a weight -> value before.
        call: what it was called with.
        seen: what its own code got, behind all hooks on its input.
        output: what came out.

    Returns:
        that, and the part of it that adds up (`paramz.check.aligned`). None where the output cannot
        be compared, as it has another shape, or where the part cannot be told apart.
    """
    with torch.no_grad():
        change = {name: p - old[name] for name, p in weights.items()}
        parts = random_part(module, change, seen)
    if parts is not None and _is_plain_linear(module, weights):
        whole: torch.Tensor | None = parts[0].sqrt()  # over about 256 rows
    else:
        before = _rerun(module, weights, old, call)
        alike = before if before is not None and before.shape == output.shape else None
        whole = None if alike is None else size(output.detach() - alike)
    if whole is None or parts is None or type(module) is nn.Embedding:
        return whole, None
    return whole, whole * aligned_share(*parts).sqrt()


def _is_plain_linear(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether W x + b is all that a module does: its one hook is the recording's."""
    plain = type(module) is nn.Linear and weights.keys() <= {"weight", "bias"}
    return plain and len(module._forward_hooks) == 1


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
