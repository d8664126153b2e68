"""Record what the modules of a model take in and put out during a forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from paramz.anatomy.paths import join
from paramz.apply.outputs import activations, prediction
from paramz.check.aligned import random_part
from paramz.check.jobs import MODEL, input_of, numbered
from paramz.check.reach import Reaches
from paramz.check.update import Call, own_update, own_weights, weight_makers
from paramz.check.values import NO_SLICES, Slices, cut, of_length_one, size, unmasked

_SOFTMAX = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax)


@dataclass
class Record:
    """What one forward pass showed. A row is a module call, an input of one, or the model.

    Attributes:
        outputs: row -> a copy of the tensor; only if there is no earlier record to compare with.
        sizes: row -> its root mean square.
        changes: row -> that of its change since the earlier record.
        updates: row -> that of what the module's own weights made of the change.
        aligned: row -> that of the part of it which adds up, see `paramz.check.aligned`.
        inputs: row -> that of what the module got; this and the next three only in a first record.
        expected: row -> that of an output which the module's weights, drawn at random, would make.
        reaches: row -> how large attention logits become, see `paramz.check.reach`.
        nodes: row -> what made it in the graph of the backward pass.
        called: paths of the modules that ran.
        logits: inputs that softmax modules take, without those that a mask hides.
    """

    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    changes: dict[str, float] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)
    aligned: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, float] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    reaches: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    logits: set[str] = field(default_factory=set)


@contextmanager
def recording(
    model: nn.Module,
    first: Record | None = None,
    *,
    start: Mapping[str, torch.Tensor] | None = None,
    repeats: bool = False,
    slices: Mapping[str, Slices] = NO_SLICES,
) -> Iterator[Record]:
    """Record a forward pass: everything is measured when it is made, before it can be changed.

    A module called several times is recorded under ``path``, ``path#2``, ... Its input is recorded
    as ``path(input)`` where no row shows it yet, that is, where an operation outside of all modules
    made it; and the model's own output as `MODEL` where no module's output is it.

    Args:
        model: the model, which is to be called inside.
        first: an earlier record to compare with: the same rows are recorded, with their changes.
        start: an earlier state_dict: modules with weights of their own are run once more on the
            same input with those weights, and the difference is their own update.
        repeats: record modules that only hand on the output of another one, too.
        slices: what is recorded of outputs beside the whole (`paramz.check.labels.slices_shown`).
    """
    watch = _Watch(model, first, start, repeats, slices)
    handles = list(_hooks(model, watch))
    try:
        with nullcontext() if first is not None else Reaches(watch.reached):
            yield watch.record
    finally:
        for handle in handles:
            handle.remove()
    watch.finish()


class _Watch:
    """What is known in the middle of a forward pass; its methods are called by hooks.

    A tensor is known by its memory and by the version of its values, which operations in place
    raise. References are kept until the end, so that no memory is used twice.
    """

    def __init__(
        self,
        model: nn.Module,
        first: Record | None,
        start: Mapping[str, torch.Tensor] | None,
        repeats: bool,
        slices: Mapping[str, Slices],
    ) -> None:
        self.record = Record()
        self.first, self.start, self.repeats, self.slices = first, start, repeats, slices
        self.entered: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.calls: dict[str, list[Call]] = {}
        self.known: dict[int, tuple[int, int]] = {}
        self.kept: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None
        self.measured: list[tuple[dict[str, float], str, torch.Tensor]] = []
        self.paused = False
        self.inside: list[str] = []
        self.given: list[int | None] = []
        self.reaches: Counter[str] = Counter()
        # Modules that ran, and those that hold one that did.
        ran = first.called if first is not None else ()
        self.in_use = {
            path[:end] for path in ran for end in (*_dots(path), len(path)) if path[:end]
        }
        for parameter in model.parameters():  # A weight is no activation, whoever gets it.
            self._know(parameter)

    def enter(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before a module runs, and before any hook changes its input."""
        if self.paused:
            return
        self.entered[path] += 1
        self.inside.append(path)
        given = next(activations((args, kwargs)), None)
        self.given.append(None if given is None else _version(given))
        if path:
            row = numbered(input_of(path), self.entered[path])
            tensor = next(activations((args, kwargs)), None)
            if tensor is not None and not self._is_known(tensor):
                if self._wants(row, tensor, module):
                    if isinstance(module, _SOFTMAX):
                        self.record.logits.add(input_of(path))
                        self._measure(row, unmasked(tensor))
                    else:
                        self._measure(row, tensor)
                    if self.first is None:
                        self.record.nodes[row] = tensor.grad_fn
                self._know(tensor)
            if self.start is not None and self._weights(path, module):
                self.calls.setdefault(path, []).append(Call.of(module, args, kwargs))
        else:
            for tensor in activations((args, kwargs)):  # The data.
                self._know(tensor)

    def leave(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """After a module and all hooks on its output have run."""
        if self.paused:
            return
        self.record.called.add(path)
        if path in self.inside:  # An exception that the model caught leaves modules in it.
            at = self.inside.index(path)
            version = self.given[at]
            del self.inside[at:], self.given[at:]
        else:
            version = None
        call = self.calls[path].pop() if self.calls.get(path) else None
        tensor = next(activations(output), None) if path else prediction(output)
        if tensor is None:
            return
        self.left[path] += 1
        row = numbered(path or MODEL, self.left[path])
        weights = self._weights(path, module) if path else {}
        if self.first is not None:
            wanted = row in self.first.outputs
        elif path:
            wanted = bool(weights) or self.repeats or not self._is_known(tensor, whole=True)
        else:
            wanted = not self._is_known(tensor) and not self._is_copy(tensor)
        if wanted:
            self._measure(row, tensor)
            for part, view in cut(tensor, self.slices.get(path, ())):
                self._measure(numbered(f"{path}({part})", self.left[path]), view)
            if self.first is None:
                self.record.nodes[row] = tensor.grad_fn
                inputs = [*args, *kwargs.values()]
                seen = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
                if weights and seen is not None and version in (None, _version(seen)):
                    self._keep_evidence(row, module, weights, seen)
        self._know(tensor)
        if wanted and call is not None and self.start is not None:
            self.paused = True
            old = {name: self.start[join(path, name)] for name in weights}
            seen = next(activations((args, kwargs)), None)
            update, aligned = own_update(module, weights, old, call, seen, tensor)
            self.paused = False
            if update is not None:
                self.measured.append((self.record.updates, row, update))
                if aligned is not None:
                    self.measured.append((self.record.aligned, row, aligned))

    def _weights(self, path: str, module: nn.Module) -> dict[str, nn.Parameter]:
        """A module's own weights, and those of children that it applies without calling them.

        torch's attention does that with its out_proj. It is known after the first record.
        """
        weights = own_weights(module)
        if self.first is not None:
            for name, child in module.named_children():
                if join(path, name) not in self.in_use and name not in weight_makers(module):
                    weights.update(child.named_parameters(prefix=name))
        return weights

    def reached(self, size: torch.Tensor) -> None:
        """In the middle of a module: how large its attention logits become."""
        row = self.inside[-1] if self.inside and self.inside[-1] else MODEL
        self.reaches[row] += 1
        self.measured.append((self.record.reaches, numbered(row, self.reaches[row]), size))

    def finish(self) -> None:
        """Read all numbers from the device at once: each is waited for."""
        for numbers, row, value in self.measured:
            numbers[row] = float(value)

    def _measure(self, row: str, tensor: torch.Tensor) -> None:
        values = tensor.detach()
        self.last = values
        self.measured.append((self.record.sizes, row, size(values)))
        if self.first is None:
            self.last = self.record.outputs[row] = values.clone()
            return
        before = self.first.outputs.get(row)
        if before is not None and before.shape == values.shape:
            self.measured.append((self.record.changes, row, size(values - before)))

    def _keep_evidence(
        self, row: str, module: nn.Module, weights: Mapping[str, nn.Parameter], seen: torch.Tensor
    ) -> None:
        """What tells an init from a factor in the forward pass."""
        if seen.is_floating_point():
            self.measured.append((self.record.inputs, row, size(seen)))
        with torch.no_grad():
            parts = random_part(module, {name: p.detach() for name, p in weights.items()}, seen)
        if parts is not None:
            self.measured.append((self.record.expected, row, parts[1].sqrt()))

    def _wants(self, row: str, tensor: torch.Tensor, module: nn.Module) -> bool:
        """Whether an input that is not known is recorded: not if it is data, made of no weight.

        Nor are vectors of length one that no weight multiplies, as the queries of cosine attention
        in a module of its own: what is made of them tells, and not how small their entries are.
        """
        if self.first is not None:
            return row in self.first.outputs
        if next(module.parameters(), None) is None and of_length_one(tensor):
            return False
        return tensor.requires_grad and not self._is_copy(tensor)

    def _is_copy(self, tensor: torch.Tensor) -> bool:
        """Whether the values are those of the last row, which zeros do not tell."""
        return (
            self.last is not None
            and self.last.numel() == tensor.numel()
            and bool(tensor.any())
            and torch.equal(self.last.reshape(-1).to(tensor.dtype), tensor.detach().reshape(-1))
        )

    def _is_known(self, tensor: torch.Tensor, *, whole: bool = False) -> bool:
        """Whether the values have a row or need none; ``whole``: all of them at once."""
        version, entries = self.known.get(_memory(tensor), (-1, 0))
        return version == _version(tensor) and (not whole or entries == tensor.numel())

    def _know(self, tensor: torch.Tensor) -> None:
        self.known[_memory(tensor)] = (_version(tensor), tensor.numel())
        self.kept.append(tensor)


def _dots(path: str) -> list[int]:
    return [i for i, letter in enumerate(path) if letter == "."]


def _hooks(model: nn.Module, watch: _Watch) -> Iterator[RemovableHandle]:
    """Let the watch see every module that computes activations."""
    for path, module in _watched("", model):
        # Functions, not methods: copying a module copies the object that a method is bound to.
        def enter(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            watch.enter(path, module, args, kwargs)

        def leave(module: nn.Module, args: Any, kwargs: Any, out: Any, path: str = path) -> None:
            watch.leave(path, module, args, kwargs, out)

        yield module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        yield module.register_forward_hook(leave, with_kwargs=True)


def _watched(
    path: str, module: nn.Module, done: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Each module once, but neither losses nor what computes weights."""
    done = set() if done is None else done
    if module in done or isinstance(module, nn.modules.loss._Loss):
        return
    done.add(module)
    yield path, module
    makers = weight_makers(module)
    for name, child in module.named_children():
        if name not in makers:
            yield from _watched(join(path, name), child, done)


def _memory(tensor: torch.Tensor) -> int:
    """What names the memory that a tensor shares with its views; its own id if it has none."""
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
