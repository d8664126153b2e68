"""Follow the output of every matrix through one run of a model.

The run is on the meta device where that works, and only operations are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy import operations as ops
from paramz.anatomy.flow import Flow, Stretch
from paramz.anatomy.memory import Known
from paramz.anatomy.moved import Moved
from paramz.anatomy.runs import copied_to, device_of, outputs, run, tensors_in


def follow(
    model: nn.Module, matrices: Mapping[str, Set[int]], inputs: Any, kept: int | None = 2
) -> Flow:
    """Run a model once and say where the outputs of its matrices go.

    Args:
        model: on any device; it runs in eval mode and is left as it was.
        matrices: names of its matrices that grow with width, and along which axes they do.
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run; None: all of them.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 3), nn.Linear(3, 8), nn.Linear(8, 1))
    >>> flow = follow(net, {f"{i}.weight": {i % 2} for i in range(4)}, torch.ones(1, 2))
    >>> sorted(flow.read), sorted(flow.fed)
    (['3.weight'], ['1.weight', '2.weight', '3.weight'])
    """
    wanted = matrices.keys()
    named = {name: p for name, p in model.named_parameters() if name in wanted}
    follower = _Follower(matrices, Moved(named, matrices))
    for name, parameter in model.named_parameters():
        follower.know(parameter, Stretch(frozenset([name]) & wanted))
        if name in wanted:
            follower.expect(name, parameter)
    moved = copied_to(device_of(model), inputs)
    for tensor in tensors_in(moved):
        follower.know(tensor, Stretch(data=True))
    states = [follower.known.of(tensor) for tensor in outputs(run(model, moved, follower, kept))]
    read = frozenset[str]().union(*(state.fresh for state in states))
    follower.passed.update(*(state.whole for state in states))
    summed, paired = {**follower.mixed, **follower.summed}, follower.paired
    return Flow(
        frozenset(follower.used),
        read,
        frozenset(follower.feeds),
        frozenset(follower.fed),
        {name: frozenset(found) for name, found in summed.items()},
        {name: frozenset(found) for name, found in paired.items()},
        frozenset(follower.normed),
        frozenset(follower.looked_up),
        frozenset(follower.beside - follower.applied),
        frozenset(follower.entrywise()),
        {name: frozenset(axes) for name, axes in matrices.items()},
    )


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where what matrices make goes while a model runs."""

    def __init__(self, growing: Mapping[str, Set[int]], moved: Moved) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.growing, self.moved = growing, moved
        self.used: set[str] = set()
        self.feeds: set[str] = set()
        self.fed: set[str] = set()
        self.normed: set[str] = set()
        self.looked_up: set[str] = set()
        self.beside: set[str] = set()
        self.applied: set[str] = set()
        self.gains: set[str] = set()
        self.otherwise: set[str] = set()
        self.added_up: set[str] = set()
        self.averaged: set[str] = set()
        self.passed: set[str] = set()  # what they multiply goes on entry by entry, too
        self.sizes: dict[str, list[int]] = {}
        self.summed: dict[str, set[tuple[int, ...]]] = {}
        self.mixed: dict[str, set[tuple[int, ...]]] = {}  # with constants, and with small weights
        self.paired: dict[str, set[int]] = {}
        self._matrices: dict[int, tuple[str, Tensor, list[tuple[int, ...]]]] = {}
        self._joined: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self._kept: list[Tensor] = []  # an address is unique only as long as its memory lives
        self.known = Known(Stretch())

    def know(self, tensor: Tensor, state: Stretch) -> None:
        self.known.put(tensor, self.known.of(tensor).merged(state))

    def expect(self, name: str, parameter: Tensor) -> None:
        own: list[tuple[int, ...]] = [(axis,) for axis in range(parameter.ndim)]
        self._matrices[parameter.untyped_storage()._cdata] = name, parameter, own
        self.sizes[name] = [parameter.shape[axis] for axis in self.growing[name]]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [self.known.of(x) for x in tensors_in((args, kwargs))]
        if any(state.data or state.weights for state in found):
            made = self._made(found, func.overloadpacket.__name__ in ops.JOINS)
            if func.overloadpacket.__name__ in ops.SUMS:
                over = self._summed_up(made.fresh, args, out)
                # A mean keeps its size, so that it may be one of a norm written out.
                averaged = func.overloadpacket.__name__ == "mean"
                (self.averaged if averaged else self.added_up).update(over)
                made = made._replace(whole=made.whole - over)
            for tensor in tensors_in(out):
                # What is chosen by an argmax has no size that could vanish with width.
                sized = tensor.is_floating_point() or tensor.is_complex()
                self.know(tensor, made if sized else made._replace(fresh=frozenset()))
            if func.overloadpacket.__name__ == "cat" and not made.data:
                self._joined[out.untyped_storage()._cdata] = out, list(args[0])
            if func.overloadpacket.__name__ in ops.COPIES and not made.data:
                self._note_copy(args[0], out)
            if func.overloadpacket.__name__ in ops.PRODUCTS:
                self._note_sums(args[-2], args[-1], out)
            if func.overloadpacket.__name__ == "convolution":
                self._note_convolution(args[1], transposed=args[6], groups=args[8])
            if func.overloadpacket.__name__ in ops.LOOKS:
                self._note_look(*args)
            if made.data:
                self._note_whole(func, args)
                if func.overloadpacket.__name__ in ("mul", "mul_"):
                    self.moved.multiply(args, out)
            else:
                self.moved.note(func.overloadpacket.__name__, tensors_in(args), out)
            if func.overloadpacket.__name__ in ops.NORMS and len(made.fresh) == 1:
                self.normed |= made.fresh
        return out

    def entrywise(self) -> set[str]:
        """Those that multiply data entry by entry, and are no readout written out."""
        return self.gains - self.otherwise - self.added_up - (self.averaged - self.passed)

    def _note_whole(self, func: Any, args: Any) -> None:
        """Whether entries of a matrix stand beside data, or do something else with it."""
        op = func.overloadpacket.__name__
        if op in ("addcmul", "addcmul_"):  # its first argument is what the product is added to
            self.beside |= self._names_in(args[:1])
            args = args[1:]
        names = self._names_in(args)
        (self.beside if op in ops.BESIDE else self.applied).update(names)
        if op not in ops.BESIDE:
            (self.gains if op in ops.GAINS else self.otherwise).update(names)

    def _names_in(self, args: Any) -> set[str]:
        """The matrices among some tensors."""
        tensors = tensors_in(args)
        found = [self._matrices.get(x.untyped_storage()._cdata) for x in tensors]
        moved = {name for x in tensors for name in self.moved.names(x)}
        return moved | {known[0] for known in found if known is not None}

    def _summed_up(self, fresh: Set[str], args: Any, after: Tensor) -> set[str]:
        """Those of matrices that made a tensor over whose growing axes a sum may have run."""
        before: Tensor = args[0]
        told = self.moved.summed(before, args[1] if len(args) > 1 else None)
        if told is not None:
            own, gone_too = told
            return {own} if gone_too else set()
        gone = before.numel() // max(after.numel(), 1)
        if before.shape == after.shape:  # cumsum
            return set(fresh)
        return {name for name in fresh if any(gone % size == 0 for size in self.sizes[name])}

    def _note_copy(self, matrix: Any, out: Tensor) -> None:
        """Remember which axes of a matrix those of its copy are."""
        if not isinstance(matrix, Tensor) or matrix.shape != out.shape:
            return
        sides = [
            self._axes(matrix, step, size)
            for step, size in zip(matrix.stride(), matrix.shape, strict=True)
        ]
        name = next((name for name, _ in sides if name), "")
        if name and out.untyped_storage()._cdata not in self._matrices:
            self._matrices[out.untyped_storage()._cdata] = name, out, [axes for _, axes in sides]

    def _note_look(self, table: Tensor, *by: Any) -> None:
        """Whether the model's input chooses rows of a matrix."""
        known = self._matrices.get(table.untyped_storage()._cdata)
        if known is not None and any(self.known.of(each).data for each in tensors_in(by)):
            self.looked_up.add(known[0])

    def _note_sums(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """Over which axes of a matrix a product with data, or with constants, sums."""
        sides = (left, left.ndim - 1, right), (right, max(right.ndim - 2, 0), left)
        for factor, summed, other in sides:
            if self.known.of(other).weights:
                continue  # of two matrices no axis is what data is summed over
            name, axes = self._axes(factor, factor.stride(summed), factor.shape[summed])
            # A sum over width mixes no matrices: that is a map, as of sines to keys.
            mixed = self.growing.get(name, frozenset[int]()).isdisjoint(axes)
            sums = self.mixed if mixed and not self.known.of(other).data else self.summed
            self._sum_over(factor, factor.stride(summed), factor.shape[summed], sums)
            if sums is self.mixed:
                self._note_mix(factor, summed, out)
            if factor.ndim > 2 and factor.shape[0] > 1:
                self._pair_over(factor, factor.stride(0), factor.shape[0])
            whole, pieces = self._joined.get(factor.untyped_storage()._cdata, (factor, []))
            for axis, stride in enumerate(whole.stride()):
                if stride == factor.stride(summed):  # of matrices side by side, each one's
                    for piece in pieces:
                        self._sum_over(piece, piece.stride(axis), piece.shape[axis], sums)

    def _note_convolution(self, weight: Tensor, *, transposed: bool, groups: int) -> None:
        """Over which channels a matrix that is a kernel sums; each place meets its own data."""
        known = self._matrices.get(weight.untyped_storage()._cdata)
        if known is not None and groups == 1 and weight.shape == known[1].shape:
            self.summed.setdefault(known[0], set()).add((0 if transposed else 1,))
            self.paired.setdefault(known[0], set()).update(range(2, weight.ndim))

    def _note_mix(self, factor: Tensor, summed: int, out: Tensor) -> None:
        """Remember which axes of a stack of matrices those of its product with a constant are."""
        known = self._matrices.get(factor.untyped_storage()._cdata)
        if known is None or known[1].ndim < 3 or not out.is_contiguous():
            return
        name, stack, own = known
        sides: list[tuple[int, tuple[int, ...]]] = []
        for axis, (step, size) in enumerate(zip(factor.stride(), factor.shape, strict=True)):
            if axis != summed:
                inner = [
                    a for a, stride in enumerate(stack.stride()) if step <= stride < step * size
                ]
                sides += [(stack.shape[a], own[a]) for a in inner]
            elif factor.ndim == out.ndim:
                sides.append((out.shape[axis], ()))
        shape = [size for size, _ in sides]
        if math.prod(shape) == out.numel():
            mixed = out.new_empty(shape, device="meta")
            self._kept.append(out)
            self._matrices[out.untyped_storage()._cdata] = name, mixed, [axes for _, axes in sides]

    def _sum_over(
        self, factor: Tensor, step: int, size: int, sums: dict[str, set[tuple[int, ...]]]
    ) -> None:
        """Note a sum over entries of a factor that are some step apart."""
        name, axes = self._axes(factor, step, size)
        if axes:
            sums.setdefault(name, set()).add(axes)

    def _pair_over(self, factor: Tensor, step: int, size: int) -> None:
        """Note that entries of a factor that are some step apart meet data of their own."""
        name, axes = self._axes(factor, step, size)
        if axes:
            self.paired.setdefault(name, set()).update(axes)

    def _axes(self, factor: Tensor, step: int, size: int) -> tuple[str, tuple[int, ...]]:
        """The matrix that a factor is, if it is one, and its axes of entries some step apart."""
        known = self._matrices.get(factor.untyped_storage()._cdata)
        if known is None:
            return "", ()
        name, matrix, sides = known
        found = {
            axis
            for side, stride, own in zip(matrix.shape, matrix.stride(), sides, strict=True)
            if side > 1 and step <= stride < step * size
            for axis in own
        }
        return name, tuple(sorted(found))

    def _made(self, found: list[Stretch], join: bool) -> Stretch:
        data = [state for state in found if state.data]
        weights = frozenset[str]().union(*(s.weights for s in found if not s.data))
        if not data:
            return Stretch(weights)
        wide = any(state.wide for state in data)
        self.used |= weights
        if join or not weights:
            fresh, whole = (
                frozenset[str]().union(*found)
                for found in zip(*((s.fresh, s.whole) for s in data), strict=True)
            )
            return Stretch(data=True, fresh=fresh, wide=wide or bool(weights), whole=whole)
        self.feeds.update(*(state.fresh - weights for state in data))
        self.passed.update(*(state.whole - weights for state in data))
        if wide:
            # Of a product of parameters it is not known which of them takes the input.
            self.fed.update(*(s.weights for s in found if not s.data and len(s.weights) == 1))
        return Stretch(data=True, fresh=weights, wide=True, whole=weights)
