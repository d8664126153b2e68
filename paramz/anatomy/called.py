"""How often blocks run, counted in a run of the model on the meta device."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.paths import unnumbered
from paramz.anatomy.probes import Probes
from paramz.anatomy.runs import copied_to, device_of, on_meta, run
from paramz.anatomy.tensors import ModelTensor

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
                return Calls(_counted(model, blocks, inputs), _counted(base, at_base, inputs))
        except Exception:  # any model's own code, on inputs that it may not like
            continue
    return Calls()


def _counted(model: nn.Module, blocks: Blocks, inputs: Any) -> dict[str, int]:
    """How often every block runs; where the first ones of each kind run once, the rest are not run.

    Code that goes through its blocks runs each once, however many there are. Code that runs blocks
    by their number fails with fewer of them, or runs these more often; and one block may stand in
    a list several times.
    """
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    if any(len(set(each)) < len(each) for each in lists):
        return count_calls(model, blocks, inputs)
    try:
        first = count_calls(model, blocks, inputs, kept=2)
    except Exception:  # code that counts its blocks
        return count_calls(model, blocks, inputs)
    if max(first.values(), default=0) > 1:
        return count_calls(model, blocks, inputs)
    reached = {unnumbered(path) for path, runs in first.items() if runs}
    return {path: int(unnumbered(path) in reached) for path in blocks}


def uncalled_layers(tensors: Iterable[ModelTensor], probes: Probes, example: Any) -> frozenset[str]:
    """Layers that share a tensor and are not called, as where code takes their weight alone.

    A layer in a module that does not run itself, such as an expert without tokens, is none of them.

    Args:
        tensors: of the target.
        probes: the base runs.
        example: what to call it with; inputs are guessed if it is left out.

    Returns:
        their paths in the target; none if no inputs fit.
    """
    uses = [use.module for tensor in tensors if len(tensor.uses) > 1 for use in tensor.uses]
    twins = {path: twin for path in uses if (twin := probes.twin(path)) in probes.modules[0]}
    around = {twin: _around(probes.base, twin) for twin in twins.values()}
    wanted: Blocks = {path: set() for path in {*around, *around.values()}}
    for inputs in possible_inputs(probes.base, example) if wanted else ():
        for kept in (1, None):  # code that counts its blocks needs all of them
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    calls = count_calls(probes.base, wanted, inputs, kept)
            except Exception:  # any model's own code, on inputs that it may not like
                continue
            missed = {twin for twin in around if calls[around[twin]] and not calls[twin]}
            return frozenset(path for path, twin in twins.items() if twin in missed)
    return frozenset()


def _around(model: nn.Module, path: str) -> str:
    """The module whose code calls another one: the nearest around it that is no mere list."""
    while path:
        path = path.rpartition(".")[0]
        if not isinstance(model.get_submodule(path), nn.ModuleList | nn.ModuleDict):
            break
    return path


def count_calls(
    model: nn.Module, blocks: Blocks, inputs: Any, kept: int | None = None
) -> dict[str, int]:
    """How often every block runs in one call of a model; 0 where the call does not reach it.

    Args:
        model: on any device; it runs on the meta device, in eval mode, and is left as it was.
        blocks: path of a block -> paths of modules inside it, which are counted if the block itself
            is never called (a list of layers).
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run; None: all of them.

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
        run(model, copied_to(device_of(model), inputs), nullcontext(), kept)
    return {
        path: calls[id(modules[path])]
        or max((calls[id(modules[each])] for each in inner), default=0)
        for path, inner in blocks.items()
    }
