"""Where the output of each matrix goes: a model runs once, and every tensor is followed.

A map from width into a fixed size is a readout if what it makes reaches the model's output through
no other matrix that grows; else it is a bottleneck inside the network. Shapes cannot tell the two
apart. The run is on the meta device where that works, and only operations are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy.paths import unnumbered
from paramz.anatomy.runs import copied_to, device_of, outputs, run, tensors_in


@dataclass(frozen=True)
class Flow:
    """What one run showed of the matrices that grow.

    Attributes:
        used: names of those that the run used.
        read: names of those whose output reaches the model's output through none of the others.
        feeds: names of those whose output goes on into one of the others, read or not.
        fed: names of those whose input was made by one of them.
        summed: name -> the axes over which products with data sum, once for every way that occurs.
        normed: names of those whose output, or a slice of it, goes into a norm by itself.
        looked_up: names of those of which the model's input chooses rows.
    """

    used: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    feeds: frozenset[str] = frozenset()
    fed: frozenset[str] = frozenset()
    summed: Mapping[str, frozenset[tuple[int, ...]]] = field(default_factory=dict)
    normed: frozenset[str] = frozenset()
    looked_up: frozenset[str] = frozenset()

    def is_normed(self, name: str) -> bool | None:
        """Whether a norm follows a matrix; None where the run does not tell."""
        return self._found(name, self.normed)

    def reads_out(self, name: str) -> bool | None:
        """Whether a matrix makes the model's output; None where the run does not tell."""
        return self._found(name, self.read)

    def goes_on(self, name: str) -> bool | None:
        """Whether other matrices take what one makes; None where the run does not tell."""
        return self._found(name, self.feeds)

    def is_fed(self, name: str) -> bool | None:
        """Whether a matrix's input was made by another one; None where the run does not tell."""
        return self._found(name, self.fed)

    def sums(self, name: str) -> frozenset[tuple[int, ...]]:
        """The axes of a matrix over which products with data sum; empty if the run shows none."""
        if name in self.used:
            return self.summed.get(name, frozenset())
        alike = {self.summed.get(n, frozenset()) for n in self._alike(name)}
        return alike.pop() if len(alike) == 1 else frozenset()

    def _found(self, name: str, which: frozenset[str]) -> bool | None:
        """Of a matrix in a block that did not run, what was found in the others."""
        if name in self.used:
            return name in which
        found = {n in which for n in self._alike(name)}
        return found.pop() if len(found) == 1 else None

    def _alike(self, name: str) -> Iterable[str]:
        """The matrices that ran at the same place of another block."""
        return self._kinds.get(unnumbered(name), ())

    @cached_property
    def _kinds(self) -> Mapping[str, list[str]]:
        kinds: dict[str, list[str]] = {}
        for name in self.used:
            kinds.setdefault(unnumbered(name), []).append(name)
        return kinds


# Operations in which a table of parameters is looked up in, or stands beside what else goes in.
_JOINS = frozenset(
    """add add_ sub sub_ cat stack copy_ where embedding _embedding_bag index index_select gather
    masked_fill masked_scatter index_put index_put_ slice_scatter select_scatter""".split()
)


# Operations that take rows of their first argument by numbers in others.
_LOOKS = frozenset({"embedding", "_embedding_bag", "index", "index_select"})


# Products that sum over the last axis of one factor and the last but one of the other.
_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv"})


# What every norm is made of, fused or written out.
_NORMS = frozenset(
    """native_layer_norm native_group_norm native_batch_norm _fused_rms_norm rsqrt
    linalg_vector_norm norm std var var_mean""".split()
)


class _State(NamedTuple):
    """What is known of a stretch of memory.

    Attributes:
        weights: the matrices that it is a function of, where it depends on no input.
        data: it depends on the model's input.
        fresh: matrices that made it, with no other one since.
        wide: it has been through a matrix that grows.
    """

    weights: frozenset[str] = frozenset()
    data: bool = False
    fresh: frozenset[str] = frozenset()
    wide: bool = False

    def merged(self, other: _State) -> _State:
        return _State(
            self.weights | other.weights,
            self.data or other.data,
            self.fresh | other.fresh,
            self.wide or other.wide,
        )


def follow(model: nn.Module, matrices: Iterable[str], inputs: Any, kept: int | None = 2) -> Flow:
    """Run a model once and say where the outputs of its matrices go.

    Args:
        model: on any device; it runs in eval mode and is left as it was.
        matrices: names of its parameters that are matrices and grow with width.
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run; None: all of them.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 3), nn.Linear(3, 8), nn.Linear(8, 1))
    >>> flow = follow(net, [f"{i}.weight" for i in range(4)], torch.ones(1, 2))
    >>> sorted(flow.read), sorted(flow.fed)
    (['3.weight'], ['1.weight', '2.weight', '3.weight'])
    """
    wanted = frozenset(matrices)
    follower = _Follower()
    for name, parameter in model.named_parameters():
        follower.know(parameter, _State(frozenset([name]) & wanted))
        if name in wanted:
            follower.expect(name, parameter)
    moved = copied_to(device_of(model), inputs)
    for tensor in tensors_in(moved):
        follower.know(tensor, _State(data=True))
    states = [follower.state(tensor) for tensor in outputs(run(model, moved, follower, kept))]
    read = frozenset[str]().union(*(state.fresh for state in states))
    summed = {name: frozenset(found) for name, found in follower.summed.items()}
    return Flow(
        frozenset(follower.used),
        read,
        frozenset(follower.feeds),
        frozenset(follower.fed),
        summed,
        frozenset(follower.normed),
        frozenset(follower.looked_up),
    )


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what is known by the memory of tensors: views share it, and it is changed in place."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used: set[str] = set()
        self.feeds: set[str] = set()
        self.fed: set[str] = set()
        self.normed: set[str] = set()
        self.looked_up: set[str] = set()
        self.summed: dict[str, set[tuple[int, ...]]] = {}
        self._matrices: dict[int, tuple[str, Tensor]] = {}
        self._joined: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self._states: dict[int, _State] = {}
        self._kept: list[Any] = []  # an address is unique only as long as its memory lives

    def know(self, tensor: Tensor, state: _State) -> None:
        memory = tensor.untyped_storage()
        before = self._states.get(memory._cdata)
        if before is None:
            self._kept.append(memory)
        self._states[memory._cdata] = state if before is None else before.merged(state)

    def expect(self, name: str, parameter: Tensor) -> None:
        self._matrices[parameter.untyped_storage()._cdata] = name, parameter

    def state(self, tensor: Tensor) -> _State:
        return self._states.get(tensor.untyped_storage()._cdata, _State())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [self.state(x) for x in tensors_in((args, kwargs))]
        if any(state.data or state.weights for state in found):
            made = self._made(found, func.overloadpacket.__name__ in _JOINS)
            for tensor in tensors_in(out):
                # What is chosen by an argmax has no size that could vanish with width.
                whole = tensor.is_floating_point() or tensor.is_complex()
                self.know(tensor, made if whole else made._replace(fresh=frozenset()))
            if func.overloadpacket.__name__ == "cat" and not made.data:
                self._joined[out.untyped_storage()._cdata] = out, list(args[0])
            if func.overloadpacket.__name__ in _PRODUCTS:
                self._note_sums(*args[-2:])
            if func.overloadpacket.__name__ in _LOOKS:
                self._note_look(*args)
            if func.overloadpacket.__name__ in _NORMS and len(made.fresh) == 1:
                self.normed |= made.fresh
        return out

    def _note_look(self, table: Tensor, *by: Any) -> None:
        """Whether the model's input chooses rows of a matrix."""
        known = self._matrices.get(table.untyped_storage()._cdata)
        if known is not None and any(self.state(each).data for each in tensors_in(by)):
            self.looked_up.add(known[0])

    def _note_sums(self, left: Tensor, right: Tensor) -> None:
        """Over which axes of a matrix a product with data sums."""
        sides = (left, left.ndim - 1, right), (right, max(right.ndim - 2, 0), left)
        for factor, summed, other in sides:
            if not self.state(other).data:
                continue
            self._sum_over(factor, factor.stride(summed), factor.shape[summed])
            whole, pieces = self._joined.get(factor.untyped_storage()._cdata, (factor, []))
            for axis, stride in enumerate(whole.stride()):
                if stride == factor.stride(summed):  # of matrices side by side, each one's
                    for piece in pieces:
                        self._sum_over(piece, piece.stride(axis), piece.shape[axis])

    def _sum_over(self, factor: Tensor, step: int, size: int) -> None:
        """Note a sum over entries of a factor that are some step apart."""
        known = self._matrices.get(factor.untyped_storage()._cdata)
        if known is None:
            return
        name, matrix = known
        axes = tuple(
            axis
            for axis, stride in enumerate(matrix.stride())
            if matrix.shape[axis] > 1 and step <= stride < step * size
        )
        if axes:
            self.summed.setdefault(name, set()).add(axes)

    def _made(self, found: list[_State], join: bool) -> _State:
        data = [state for state in found if state.data]
        weights = frozenset[str]().union(*(s.weights for s in found if not s.data))
        if not data:
            return _State(weights)
        wide = any(state.wide for state in data)
        self.used |= weights
        if join or not weights:
            fresh = frozenset[str]().union(*(state.fresh for state in data))
            return _State(data=True, fresh=fresh, wide=wide or bool(weights))
        self.feeds.update(*(state.fresh - weights for state in data))
        if wide:
            # Of a product of parameters it is not known which of them takes the input.
            self.fed.update(*(s.weights for s in found if not s.data and len(s.weights) == 1))
        return _State(data=True, fresh=weights, wide=True)
