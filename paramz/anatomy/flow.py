"""Where the output of each matrix goes: a model runs once, and every tensor is followed.

A map from width into a fixed size is a readout if what it makes reaches the model's output through
no other matrix that grows; else it is a bottleneck inside the network. Shapes cannot tell the two
apart. The run is on the meta device where that works, and only operations are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from paramz.anatomy.paths import unnumbered
from paramz.anatomy.twins import signature

# Blocks of one kind that a run keeps of a list of them: one feeds the other, which shows as much as
# a hundred do.
_KEPT_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Flow:
    """What one run showed of the matrices that grow.

    Attributes:
        used: names of those that the run used.
        read: names of those whose output reaches the model's output through none of the others.
        fed: names of those whose input was made by one of them.
    """

    used: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    fed: frozenset[str] = frozenset()

    def reads_out(self, name: str) -> bool | None:
        """Whether a matrix is a readout; None where the run does not tell."""
        return self._found(name, self.read)

    def is_fed(self, name: str) -> bool | None:
        """Whether a matrix's input was made by another one; None where the run does not tell."""
        return self._found(name, self.fed)

    def _found(self, name: str, which: frozenset[str]) -> bool | None:
        """Of a matrix in a block that did not run, what was found in the others."""
        if name in self.used:
            return name in which
        found = {n in which for n in self.used if unnumbered(n) == unnumbered(name)}
        return found.pop() if len(found) == 1 else None


# Operations in which a table of parameters is looked up in, or stands beside what else goes in.
_JOINS = frozenset(
    """add add_ sub sub_ cat stack copy_ where embedding _embedding_bag index index_select gather
    masked_fill masked_scatter index_put index_put_ slice_scatter select_scatter""".split()
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


def follow(model: nn.Module, matrices: Iterable[str], inputs: Any) -> Flow:
    """Run a model once and say where the outputs of its matrices go.

    Of long lists of equal blocks the first two run.

    Args:
        model: on any device; it runs in eval mode and is left as it was.
        matrices: names of its parameters that are matrices and grow with width.
        inputs: the model's one argument, or a mapping of keyword arguments.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 3), nn.Linear(3, 8), nn.Linear(8, 1))
    >>> flow = follow(net, [f"{i}.weight" for i in range(4)], torch.ones(1, 2))
    >>> sorted(flow.read), sorted(flow.fed)
    (['3.weight'], ['1.weight', '2.weight', '3.weight'])
    """
    wanted = frozenset(matrices)
    parameters = list(model.named_parameters())
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    moved = tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, inputs)
    with (
        in_eval_mode(model),
        short_lists(model),
        torch.random.fork_rng(devices=[]),
        torch.device(device),
        _Follower() as follower,
    ):
        for name, parameter in parameters:
            follower.know(parameter, _State(frozenset([name]) & wanted))
        for tensor in _tensors(moved):
            follower.know(tensor, _State(data=True))
        if isinstance(moved, Mapping):
            out = model(**moved)
        else:
            out = model(moved)
    states = [follower.state(tensor) for tensor in _outputs(out)]
    read = frozenset[str]().union(*(state.fresh for state in states))
    return Flow(frozenset(follower.used), read, frozenset(follower.fed))


@contextmanager
def short_lists(model: nn.Module) -> Iterator[None]:
    """The model with short lists of equal blocks."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > _KEPT_BLOCKS]
    whole = [dict(each._modules) for each in lists]
    for each in lists:
        kinds: dict[Any, int] = {}
        kept = []
        for block in each:
            kind = signature(block)
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] <= _KEPT_BLOCKS:
                kept.append(block)
        each._modules = {str(n): block for n, block in enumerate(kept)}
    try:
        yield
    finally:
        for each, blocks in zip(lists, whole, strict=True):
            each._modules = blocks


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what is known by the memory of tensors: views share it, and it is changed in place."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used: set[str] = set()
        self.fed: set[str] = set()
        self._states: dict[int, _State] = {}
        self._kept: list[Any] = []  # an address is unique only as long as its memory lives

    def know(self, tensor: Tensor, state: _State) -> None:
        memory = tensor.untyped_storage()
        before = self._states.get(memory._cdata)
        if before is None:
            self._kept.append(memory)
        self._states[memory._cdata] = state if before is None else before.merged(state)

    def state(self, tensor: Tensor) -> _State:
        return self._states.get(tensor.untyped_storage()._cdata, _State())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return args[0].dtype == torch.bool  # a value that nobody has: any branch will do
        out = func(*args, **(kwargs or {}))
        found = [self.state(x) for x in _tensors((args, kwargs))]
        if any(state.data or state.weights for state in found):
            made = self._made(found, func.overloadpacket.__name__ in _JOINS)
            for tensor in _tensors(out):
                self.know(tensor, made)
        return out

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
        if wide:
            # Of a product of parameters it is not known which of them takes the input.
            self.fed.update(*(s.weights for s in found if not s.data and len(s.weights) == 1))
        return _State(data=True, fresh=weights, wide=True)


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _outputs(out: Any) -> list[Tensor]:
    """The tensors that a model returns: of an object with fields, those of its fields."""
    if not isinstance(out, Tensor | tuple | list | Mapping) and hasattr(out, "__dict__"):
        out = vars(out)
    return _tensors(dict(out) if isinstance(out, Mapping) else out)


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
