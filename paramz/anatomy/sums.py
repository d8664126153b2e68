"""Residual sums that a run of a model shows, and the last matrices of what is added in them.

Names tell where most branches end; what the code adds to the stream does not depend on names. In
``x + branch(x)`` the second term was made from the first one through a matrix. The run is on the
meta device, and only operations are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy.memory import Known
from paramz.anatomy.runs import copied_to, device_of, on_meta, run, tensors_in

# Operations after which a tensor is the one that it was before.
_SAME = frozenset({"clone", "_to_copy", "detach", "alias", "native_dropout", "copy_"})
_SUMS = frozenset({"add", "add_"})
# Operations after which a factor on what went in is no factor on what comes out.
_BENDS = frozenset(
    """sigmoid sigmoid_ silu silu_ gelu relu relu_ tanh tanh_ elu leaky_relu hardtanh hardswish
    hardsigmoid mish softplus exp pow square clamp clamp_min _softmax""".split()
)
# Of two activations; what is zero where one factor is.
_PRODUCTS = frozenset({"mul", "mul_", "mm", "bmm", "baddbmm", "mv"})
# What a norm divides by, and norms as one operation: a factor on what went in is lost behind them.
_LENGTHS = frozenset({"rsqrt", "sqrt", "linalg_vector_norm", "norm", "std", "var"})
_POWERS = frozenset({"pow", "pow_"})
_NORMS = frozenset(
    """native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm _fused_rms_norm
    _native_batch_norm_legit _native_batch_norm_legit_no_training""".split()
)
_QUOTIENTS = frozenset({"mul", "mul_", "div", "div_"})
# Operations in which a table of parameters is looked up in, or stands beside what else goes in.
_JOINS = frozenset(
    """add add_ sub sub_ cat stack where embedding _embedding_bag index index_select gather
    masked_fill masked_scatter index_put index_put_ slice_scatter select_scatter""".split()
)


class _State(NamedTuple):
    """What is known of a stretch of memory.

    Attributes:
        data: it depends on the model's input.
        weights: the matrices that it is a function of, where it depends on no input.
        at: the number of the operation that made it.
        through: numbers of the tensors from which it was made by a matrix.
        near: those from which it was made by none.
        fresh: matrices that made it, with no other one since, but for ends of branches.
        tips: ends of branches that made it, likewise.
        ended: it is the output of an end, times anything.
        bent: a nonlinearity came after the matrices that made it.
        lost: ends of branches of whose output a norm took the size, or a length is known here, each
            with the module in which that was, empty where no module puts out the result.
        streams: of a residual sum, numbers of what it was before branches beside each other were
            added, as in ``x + attention(x) + feed_forward(x)``.
    """

    data: bool = False
    weights: frozenset[str] = frozenset()
    at: int = 0
    through: frozenset[int] = frozenset()
    near: frozenset[int] = frozenset()
    fresh: frozenset[str] = frozenset()
    tips: frozenset[str] = frozenset()
    ended: bool = False
    bent: bool = False
    lost: frozenset[tuple[str, str]] = frozenset()
    streams: frozenset[int] = frozenset()


class Added(NamedTuple):
    """What a model adds to what it was made from.

    Attributes:
        unended: names of the matrices that made it, where no known end did.
        ended: paths of the known ends that made it.
        bent: those of the matrices after which there is a nonlinearity.
        lost: known end, of whose output a norm takes the size before it is added -> path of the
            module that puts out what is added, empty where none does.
    """

    unended: set[str]
    ended: set[str]
    bent: set[str]
    lost: dict[str, str]


def find_added(model: nn.Module, ends: Iterable[str], inputs: Any, kept: int | None = 2) -> Added:
    """What ends the branches of a model: the last matrices before every residual sum.

    Args:
        model: on any device; it runs on the meta device, in eval mode, and is left as it was.
        ends: paths of the modules that are known to end branches.
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run; None: all of them.

    >>> import torch
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.up, self.back = nn.Linear(4, 8), nn.Linear(8, 4)
    ...     def forward(self, x):
    ...         return x + self.back(self.up(x).relu())
    >>> find_added(Net(), [], torch.ones(1, 4))
    Added(unended={'back.weight'}, ended=set(), bent=set(), lost={})
    >>> find_added(Net(), ["back"], torch.ones(1, 4))
    Added(unended=set(), ended={'back'}, bent=set(), lost={})
    """
    with ExitStack() as stack:
        stack.enter_context(on_meta(model))
        reader = _Reader()
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                reader.known.put(parameter, _State(weights=frozenset([name])))
        moved = copied_to(device_of(model), inputs)
        for number, tensor in enumerate(tensors_in(moved)):
            reader.known.put(tensor, _State(data=True, at=-number))
        stack.enter_context(_told_of_ends(model, ends, reader))
        run(model, moved, reader, kept)
    return reader.added


@contextmanager
def _told_of_ends(model: nn.Module, ends: Iterable[str], reader: _Reader) -> Iterator[None]:
    known = set(ends)
    handles = [
        module.register_forward_hook(
            lambda *a, path=path: (reader.end if path in known else reader.left)(
                path, tensors_in(a[-1])
            )
        )
        for path, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Reader(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes sums while a model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.added = Added(set(), set(), set(), {})
        self.known = Known(_State())
        self._count = 0

    def end(self, path: str, outputs: list[Tensor]) -> None:
        for tensor in outputs:
            state = self.known.of(tensor)
            if state.data:
                made = state._replace(fresh=frozenset(), tips=frozenset([path]), ended=True)
                self.known.put(tensor, made._replace(lost=frozenset()))

    def left(self, path: str, outputs: list[Tensor]) -> None:
        """A module puts these out: a norm, if the sizes of ends outside of it were lost in it.

        The outermost one counts, as a norm with parts may have a gain and a bias of its own.
        """
        if len(outputs) != 1:
            return
        state, inside = self.known.of(outputs[0]), f"{path}."
        if state.tips or state.fresh or any(end.startswith(inside) for end, _ in state.lost):
            return
        if state.lost and path and all(not by or by.startswith(inside) for _, by in state.lost):
            lost = frozenset((end, path) for end, _ in state.lost)
            self.known.put(outputs[0], state._replace(lost=lost))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        given = tensors_in((args, kwargs))
        found = [self.known.of(x) for x in given]
        memories = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **(kwargs or {}))
        if not any(state.data or state.weights for state in found):
            return out
        root = name in _POWERS and args[1] in (0.5, -0.5)
        made = self._made("sqrt" if root else name, found)
        for tensor in tensors_in(out):
            view = tensor.untyped_storage()._cdata in memories and not name.endswith("_")
            if not view:
                self.known.put(tensor, made)
        return out

    def _made(self, name: str, found: list[_State]) -> _State:
        data = [state for state in found if state.data]
        weights = frozenset[str]().union(*(state.weights for state in found if not state.data))
        if not data:
            return _State(weights=weights)
        if name in _SAME and len(data) == 1:
            return data[0]
        self._count += 1
        near = frozenset[int]().union(*(state.near | {state.at} for state in data))
        through = frozenset[int]().union(*(state.through for state in data))
        if weights and name not in _JOINS:
            return _State(True, at=self._count, through=through | near, fresh=weights)
        if name in _SUMS and len(data) == 2 and (streams := self._streams(*data)):
            return _State(True, at=self._count, through=through, near=near, streams=streams)
        ended = [state for state in data if state.ended]
        # Of a gate and what it lets through, the latter can take a factor.
        straight = [state for state in data if state.fresh and not state.bent]
        kept = (ended or straight[:1] or data) if name in _PRODUCTS else data
        fresh = frozenset[str]().union(*(state.fresh for state in kept))
        tips = frozenset[str]().union(*(state.tips for state in kept))
        whole = len(ended) == len(kept)
        bent = name in _BENDS or any(state.bent for state in kept)
        lost = frozenset[tuple[str, str]]().union(*(state.lost for state in data))
        if name in _LENGTHS or name in _NORMS:  # what one norm put out, another one may take
            lost = frozenset((end, "") for end in tips.union(end for end, _ in lost))
            tips = frozenset()
        elif name in _QUOTIENTS:
            tips = tips - {end for end, _ in lost}
        last = {end for end, by in lost if not by}
        lost = frozenset((end, by) for end, by in lost if not by or end not in last)
        made = _State(True, frozenset(), self._count, through, near, fresh, tips, whole, bent)
        return made._replace(lost=lost)

    def _streams(self, one: _State, other: _State) -> frozenset[int]:
        """What the stream was, if one of two terms was made from the other one by a matrix."""
        for stream, branch in ((one, other), (other, one)):
            now = frozenset([stream.at])
            before = now if stream.at in branch.through else now | stream.streams
            if before & branch.through:
                self.added.unended.update(branch.fresh)
                self.added.bent.update(branch.fresh if branch.bent else ())
                self.added.ended.update(branch.tips)
                lost = ((end, by) for end, by in branch.lost if end not in branch.tips)
                self.added.lost.update(lost)
                return before
        return frozenset()
