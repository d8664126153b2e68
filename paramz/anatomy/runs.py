"""Running a model once to see what its code does, on the meta device where that works.

Only operations and shapes are looked at. The model is left as it was: it runs in eval mode, of long
lists of equal blocks the first ones run, and what has no answer on meta (how many tokens an expert
gets, whether a value is true) gets one that lets the run go on.
"""

from __future__ import annotations

import copy
import functools
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from paramz.anatomy.twins import signature


def run(
    model: nn.Module,
    inputs: Any,
    watcher: AbstractContextManager[Any],
    kept: int | None,
) -> Any:
    """Call a model under a watcher.

    Args:
        model: on any device.
        inputs: the model's one argument, or a mapping of keyword arguments, of `copied_to`.
        watcher: the mode that sees every operation, if any does.
        kept: how many blocks of one kind run of a list of them; None: all.

    Returns:
        what the model returns.
    """
    device = device_of(model)
    with ExitStack() as stack:
        if kept is not None:
            stack.enter_context(short_lists(model, kept))
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(_drawing_alike())
        stack.enter_context(torch.device(device))
        if device.type == "meta":
            stack.enter_context(_Answers())  # type: ignore[no-untyped-call]
        stack.enter_context(watcher)
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


@contextmanager
def _drawing_alike() -> Iterator[None]:
    """Random numbers that are the same in every run, and the caller's states back afterwards.

    Else a number that code draws (``h * random.random()``) differs between two models, and looks
    like one that moves with width.
    """
    drawn, states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(drawn), np.random.set_state(states)


@contextmanager
def nothing_cached(model: nn.Module) -> Iterator[None]:
    """Caches beside the model's code forget what they got meanwhile: functools', and dictionaries.

    A mask that a run or a build on the meta device made would meet the real model's tensors later.
    """
    files = {sys.modules.get(type(module).__module__) for module in model.modules()} - {None}
    beside = [value for file in files for value in vars(file).values()]
    functions = [each for each in beside if isinstance(each, functools._lru_cache_wrapper)]
    tables = [(each, set(each)) for each in beside if type(each) is dict]
    misses = [each.cache_info().misses for each in functions]
    try:
        yield
    finally:
        for function, before in zip(functions, misses, strict=True):
            if function.cache_info().misses != before:
                function.cache_clear()
        for table, known in tables:
            for key in set(table) - known:
                if any(x.is_meta for x in tensors_in(table[key])):
                    del table[key]


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def copied_to(device: torch.device, inputs: Any) -> Any:
    """Inputs on a device, as copies: code may change them, and fill caches that it is given."""

    def copied(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.detach().to(device, copy=True)
        try:
            return copy.deepcopy(x)
        except Exception:  # what cannot be copied is handed on, as a call of the model would
            return x

    return tree_map(copied, inputs)


@contextmanager
def on_meta(model: nn.Module) -> Iterator[None]:
    """The model with parameters and buffers on the meta device, and its own back afterwards."""
    before = [(module, module._parameters, module._buffers) for module in model.modules()]
    moved: dict[int, Tensor] = {}  # a shared tensor stays one

    def on_meta_once(x: Tensor) -> Tensor:
        if id(x) not in moved:
            empty = torch.empty_like(x.detach(), device="meta")
            kept = isinstance(x, nn.Parameter)
            moved[id(x)] = nn.Parameter(empty, x.requires_grad) if kept else empty
        return x if x.is_meta else moved[id(x)]

    def there(kept: Mapping[str, Tensor | None]) -> dict[str, Any]:
        return {name: None if x is None else on_meta_once(x) for name, x in kept.items()}

    try:
        for module, parameters, buffers in before:
            module._parameters, module._buffers = there(parameters), there(buffers)
        yield
    finally:
        for module, parameters, buffers in before:
            module._parameters, module._buffers = parameters, buffers


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of nested lists, tuples and mappings."""
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def outputs(out: Any) -> list[Tensor]:
    """The tensors that a model returns: of an object with fields, those of its fields."""
    if not isinstance(out, Tensor | tuple | list | Mapping) and hasattr(out, "__dict__"):
        out = vars(out)
    return tensors_in(dict(out) if isinstance(out, Mapping) else out)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, and every module back in its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def short_lists(model: nn.Module, kept: int, whole: Set[str] = frozenset()) -> Iterator[None]:
    """The model with short lists of equal blocks: one feeds the other, as a hundred would.

    Args:
        model: the model.
        kept: how many of one kind stay.
        whole: paths of lists that stay as they are.
    """
    cut: list[tuple[nn.ModuleList, Any]] = []
    spared = {model.get_submodule(path) for path in whole}
    left = [model]
    try:
        while left:  # from the outside in: what is in blocks that do not run need not be looked at
            each = left.pop()
            for lists in _side_by_side(each):
                if len(lists[0]) > kept and not spared.intersection(lists):
                    rows = _first(zip(*lists, strict=True), kept)
                    for one, blocks in zip(lists, zip(*rows, strict=True), strict=True):
                        cut.append((one, one._modules))
                        one._modules = {str(n): block for n, block in enumerate(blocks)}
            left += [child for child in each._modules.values() if child is not None]
        yield
    finally:
        for one, before in reversed(cut):
            one._modules = before


def _side_by_side(module: nn.Module) -> list[list[nn.ModuleList]]:
    """The lists in a module, those of one length together: code may go through them in step."""
    found: dict[int, dict[int, nn.ModuleList]] = {}
    for child in module._modules.values():
        if isinstance(child, nn.ModuleList):
            found.setdefault(len(child), {})[id(child)] = child
    return [list(lists.values()) for lists in found.values()]


def _first(
    rows: Iterable[tuple[nn.Module | None, ...]], kept: int
) -> list[tuple[nn.Module | None, ...]]:
    """The first of each kind of rows, a block of every list, or None in the place of one."""
    kinds: Counter[Any] = Counter()
    found = []
    for row in rows:
        kind = tuple(None if block is None else signature(block) for block in row)
        kinds[kind] += 1
        if kinds[kind] <= kept:
            found.append(row)
    return found


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers on the meta device what depends on values that nobody has there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense" and args[0].is_meta:
            return args[0].dtype == torch.bool  # any branch will do
        if name == "nonzero" and args[0].is_meta:
            return args[0].new_empty((1, args[0].ndim), dtype=torch.long)  # one is there
        if name == "_grouped_mm" and args[0].is_meta:
            # Its rule for the meta device knows bfloat16 only: (tokens, k) x (experts, k, n).
            return args[0].new_empty((*args[0].shape[:-1], args[1].shape[-1]))
        return func(*args, **(kwargs or {}))
