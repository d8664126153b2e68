"""How often blocks run, counted in a run of the model on the meta device."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.runs import copied_to, device_of, on_meta, run

Blocks = Mapping[str, set[str]]


@dataclass(frozen=True)
class Calls:
    """How often blocks run in one call.

    Attributes:
        model, base: path of a block -> its runs in the target and in the base; empty where neither
            shows it.
    """

    model: Mapping[str, int] = field(default_factory=dict)
    base: Mapping[str, int] = field(default_factory=dict)


def count(
    model: nn.Module, base: nn.Module, blocks: Blocks, at_base: Blocks, example: Any
) -> Calls:
    """How often the blocks of a model and of its base run, with inputs that both take.

    Args:
        model: the target.
        base: the base model.
        blocks: of the target, as in `count_calls`.
        at_base: of the base.
        example: what to call the models with; inputs are guessed if it is left out.
    """
    for inputs in possible_inputs(base, example):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of code that meets a guess
                return Calls(count_calls(model, blocks, inputs), count_calls(base, at_base, inputs))
        except Exception:  # any model's own code, on inputs that it may not like
            continue
    return Calls()


def count_calls(model: nn.Module, blocks: Blocks, inputs: Any) -> dict[str, int]:
    """How often every block runs in one call of a model; 0 where the call does not reach it.

    Args:
        model: on any device; it runs on the meta device, in eval mode, and is left as it was.
        blocks: path of a block -> paths of modules inside it, which are counted if the block itself
            is never called (a list of layers).
        inputs: the model's one argument, or a mapping of keyword arguments.

    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.block = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return self.block(self.block(x))
    >>> count_calls(Twice(), {"block": set()}, torch.ones(1, 4))
    {'block': 2}
    """
    calls: Counter[int] = Counter()
    modules = {
        path: model.get_submodule(path) for path in {*blocks, *set().union(*blocks.values())}
    }
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(on_meta(model))
        for module in set(modules.values()):
            handle = module.register_forward_pre_hook(lambda m, _: calls.update([id(m)]))
            stack.callback(handle.remove)
        run(model, copied_to(device_of(model), inputs), nullcontext(), None)
    return {
        path: calls[id(modules[path])]
        or max((calls[id(modules[each])] for each in inner), default=0)
        for path, inner in blocks.items()
    }
