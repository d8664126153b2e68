"""A run of a model, read for what it adds to what.

`paramz.anatomy.sums` asks. In ``x + branch(x)`` the second term was made from the first one through
a matrix. Only operations are looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy.degrees import degree_of
from paramz.anatomy.memory import Known
from paramz.anatomy.runs import tensors_in
from paramz.anatomy.tensors import chooses, is_line

# Operations after which a tensor is the one that it was before.
_SAME = frozenset({"clone", "_to_copy", "detach", "alias", "native_dropout", "copy_"})
_SUMS = frozenset({"add", "add_", "sub", "sub_", "lerp", "lerp_"})
_TIMES = frozenset({"mul", "mul_", "div", "div_"})
# Operations after which a factor on what went in is not the same factor on what comes out.
_BENDS = frozenset(
    """sigmoid sigmoid_ silu silu_ gelu relu relu_ tanh tanh_ elu leaky_relu hardtanh hardswish
    hardsigmoid mish softplus exp pow square clamp clamp_min _softmax""".split()
)
# Of two activations; what is zero where one factor is.
_PRODUCTS = frozenset({"mul", "mul_", "mm", "bmm", "baddbmm", "mv"})
# Operations in which a table of parameters is looked up in, or stands beside what else goes in.
_JOINS = frozenset(
    """add add_ sub sub_ lerp lerp_ cat stack where embedding _embedding_bag index index_select
    gather masked_fill masked_scatter index_put index_put_ slice_scatter select_scatter""".split()
)


class State(NamedTuple):
    """What is known of a stretch of memory.

    Attributes:
        data: it depends on the model's input.
        weights: the matrices that it is a function of, where it depends on no input.
        bare: the parameters that it is, or is made of, where it depends on no input; of data, those
            that were added to it.
        at: the number of the operation that made it.
        same: the numbers that it had before numbers multiplied it.
        through: numbers of the tensors from which it was made by a matrix.
        near: those from which it was made by none.
        fresh: matrices that made it, with no other one since, but for ends of branches.
        tips: ends of branches that made it, likewise, or modules that came behind them.
        degree: by which power of a factor on these ends it changes; nan if by none.
        ended: it is the output of an end, times anything.
        bent: a nonlinearity came after the matrices that made it.
        streams: of a residual sum, numbers of what it was before branches beside each other were
            added, as in ``x + attention(x) + feed_forward(x)``.
        last: of a residual sum, the ends of what was added last.
        scaled: numbers have multiplied it since it was the sum that a known end is a term of.
        alone: of a residual sum, the parameters that were added to it by themselves since.
        weighed: a parameter has multiplied it; of parameters, they are no ones.
        parts: of a product of data, numbers of its factors.
        stacked: what it is a stack of, if of two things.
    """

    data: bool = False
    weights: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()
    at: int = 0
    same: frozenset[int] = frozenset()
    through: frozenset[int] = frozenset()
    near: frozenset[int] = frozenset()
    fresh: frozenset[str] = frozenset()
    tips: frozenset[str] = frozenset()
    degree: float = 0.0
    ended: bool = False
    bent: bool = False
    streams: frozenset[int] = frozenset()
    last: frozenset[str] = frozenset()
    scaled: bool = False
    alone: frozenset[str] = frozenset()
    weighed: bool = False
    parts: frozenset[int] = frozenset()
    stacked: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Added:
    """What a model adds to what it was made from.

    Attributes:
        unended: names of the matrices that made it, where no known end did.
        ended: paths of the known ends that made it.
        bent: those of the matrices after which there is a nonlinearity.
        lost: known end, of whose output a norm or a nonlinearity takes the size before it is added
            -> path of the module that puts out what is added, empty where none does.
        averaged: known ends, and matrices, of what is added to a stream that is multiplied itself.
        bare: names of parameters that are added by themselves, as biases behind an end.
        gates: known ends whose output a sigmoid or the like makes a gate on that of another end.
        ran: the model ran, so that the run would show these.
    """

    unended: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    bent: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    averaged: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    gates: set[str] = field(default_factory=set)
    ran: bool = True


class Reader(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes sums while a model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = Known(State())
        self._added = Added()
        self._count = 0
        self._behind: dict[str, frozenset[str]] = {}  # module that came behind ends -> these
        self._elsewhere: set[str] = set()  # modules that put out something else, too

    def added(self) -> Added:
        """What was found."""
        for end, by in self._added.lost.items():
            if by in self._elsewhere:  # a factor on what it puts out would be one on that, too
                self._added.lost[end] = ""
        return self._added

    def end(self, path: str, outputs: list[Tensor]) -> None:
        """A known end of a branch puts these out."""
        for tensor in outputs:
            state = self.known.of(tensor)
            if state.data:
                tips = frozenset([path])
                made = state._replace(fresh=frozenset(), tips=tips, degree=1.0, ended=True)
                self.known.put(tensor, made)

    def left(self, path: str, outputs: list[Tensor]) -> None:
        """A module puts these out: a norm, say, if the sizes of ends outside of it were lost in it.

        The outermost one counts, as a norm with parts may have a gain and a bias of its own.
        """
        state, inside = self.known.of(outputs[0]) if len(outputs) == 1 else State(), f"{path}."
        ends = self._ends(state.tips)
        summed = frozenset(end for end in state.last if end.startswith(inside))
        if path.rpartition(".")[2].isdigit() and summed:  # the output of a block is the stream
            self._added.averaged.update(summed if state.scaled else ())
            self._added.bare.update(state.alone)
        whole = state.degree == 1 and not all(tip.startswith(inside) for tip in state.tips)
        if not ends or state.fresh or whole or any(f"{e}.".startswith(inside) for e in ends):
            self._elsewhere.add(path)
        elif path:
            self._behind[path] = ends
            self.known.put(outputs[0], state._replace(tips=frozenset([path]), degree=1.0))

    def _ends(self, tips: frozenset[str]) -> frozenset[str]:
        return frozenset[str]().union(*(self._behind.get(tip, {tip}) for tip in tips))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        given = tensors_in((args, kwargs))
        found = [self.known.of(x) for x in given]
        memories = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **(kwargs or {}))
        if not any(state.data or state.bare for state in found):
            return out
        made = self._made(name, args, given, found)
        for number, tensor in enumerate(tensors_in(out)):
            view = tensor.untyped_storage()._cdata in memories and not name.endswith("_")
            if not view:
                self.known.put(tensor, made)
            if number == 0 and name == "var_mean":
                self.known.put(tensor, made._replace(degree=2 * made.degree))
        return out

    def _made(self, name: str, args: Any, given: list[Tensor], found: list[State]) -> State:
        data = [state for state in found if state.data]
        # What chooses entries is no part of them.
        values = [s for x, s in zip(given, found, strict=True) if s.data and not chooses(x)]
        gains = name in _TIMES and all(
            is_line(x) for x, state in zip(given, found, strict=True) if not state.data
        )
        weights = frozenset[str]().union(
            *(state.weights for state in found if not state.data and not (data and gains))
        )
        bare = frozenset[str]().union(*(state.bare for state in found if not state.data))
        if not data:
            whole = name in _SAME or name.startswith(("select", "index"))
            return State(weights=weights, bare=bare, weighed=not whole or found[0].weighed)
        if name in _SAME and len(data) == 1:
            return data[0]
        weighed = any(state.weighed for state in found if not state.data)
        if len(data) == 1 and (like := self._like(name, args, data[0], weights, bare, weighed)):
            return like
        self._count += 1
        near = frozenset[int]().union(*(state.near | {state.at} for state in data))
        through = frozenset[int]().union(*(state.through for state in data))
        if weights and name not in _JOINS:
            return State(True, at=self._count, through=through | near, fresh=weights)
        terms = data[0].stacked if name in ("sum", "mean") else tuple(data[:3])
        summed = name in _SUMS or terms != tuple(data[:3])
        if summed and len(terms) > 1 and (sum_of := self._sum(name, *terms)):
            return sum_of._replace(at=self._count, through=through, near=near)
        ended = [state for state in values if state.ended]
        gates = self._gates(ended) if name in _PRODUCTS else []
        ended = [state for state in ended if state not in gates]
        # Of a gate and what it lets through, the latter can take a factor.
        straight = [state for state in values if state.fresh and not state.bent]
        kept = (ended or straight[:1] or values) if name in _PRODUCTS else values
        moving = [
            state.degree if state.tips and not chooses(tensor) and state not in gates else None
            for tensor, state in zip(given, found, strict=True)
        ]
        linear = name not in _BENDS and (len(data) == 1 or name not in _PRODUCTS | {"div"})
        added = bare if name in _JOINS else frozenset()
        mixing = name in _PRODUCTS and all(s.through for s in data)  # no mask is made by a matrix
        return State(
            True,
            bare=frozenset[str]().union(added, *(s.bare for s in data)) if linear else frozenset(),
            at=self._count,
            through=through,
            near=near,
            fresh=frozenset[str]().union(*(state.fresh for state in kept)),
            tips=frozenset[str]().union(*(state.tips for state in kept)),
            degree=degree_of(name, args, moving),
            ended=len(ended) == len(kept),
            bent=name in _BENDS or any(state.bent for state in kept),
            parts=frozenset(s.at for s in data) if mixing else frozenset(),
            stacked=tuple(data) if name == "stack" and len(data) == 2 else (),
        )

    def _gates(self, ended: list[State]) -> list[State]:
        """Which of the factors of a product are gates on ends in the others."""
        bounded = [state for state in ended if math.isnan(state.degree)]
        let_through = self._ends(
            frozenset[str]().union(*(state.tips for state in ended if state not in bounded))
        )
        gates = [s for s in bounded if let_through and not self._ends(s.tips) & let_through]
        self._added.gates.update(*(self._ends(state.tips) for state in gates))
        return gates

    def _like(
        self,
        name: str,
        args: Any,
        state: State,
        weights: frozenset[str],
        bare: frozenset[str],
        weighed: bool,
    ) -> State | None:
        """What a tensor is, if it is another one times a number, or plus a parameter."""
        number = next((x for x in args[1:] if isinstance(x, int | float)), None)
        gain = bool(bare) and not weights
        if name in _TIMES and isinstance(args[0], Tensor) and (gain or number is not None):
            if number == 1 or (gain and not weighed):
                return state
            state = state._replace(weighed=state.weighed or gain)
            self._count += 1
            scaled, same = state.scaled or bool(state.last), state.same | {state.at}
            return state._replace(at=self._count, same=same, scaled=scaled)
        if name in ("add", "add_", "sub", "sub_") and bare:
            if state.streams:  # it may be for a branch alone, as in x + f(gain * x + bias)
                return state._replace(alone=state.alone | bare)
            return state._replace(bare=state.bare | bare)
        return None

    def _sum(self, name: str, one: State, other: State, gate: State | None = None) -> State | None:
        """What a sum is, if one of two terms was made from the other one by a matrix."""
        mixed, added = name.startswith(("lerp", "mean")), self._added
        for stream, branch in ((one, other), (other, one)):
            now = frozenset([stream.at])
            earlier = stream.same if stream.at not in branch.through else frozenset[int]()
            before = now if stream.at in branch.through else now | earlier | stream.streams
            ends = self._ends(branch.tips)
            if gate is None and before & branch.through:
                # What a gated recurrence mixes, as n + z * (h - n), is no branch, nor are values
                # that learnt weights mix with those of the first block.
                other_way = stream.weighed or (branch.bent and "sub" in name)
                fresh = frozenset[str]() if other_way else branch.fresh
                added.unended.update(fresh)
                added.bent.update(fresh if branch.bent else ())
                added.ended.update(ends)
                added.bare.update(branch.bare | stream.alone)
                if stream.scaled or mixed or earlier & branch.through:
                    added.averaged.update(ends, fresh)
                if branch.degree == 1:
                    behind = (tip for tip in branch.tips if tip in self._behind)
                    added.lost.update((e, tip) for tip in behind for e in self._behind[tip])
                else:
                    added.lost.update((end, "") for end in ends)
                return State(True, streams=before, last=ends)
            # As in a highway: x * (1 - gate) + f(x) * gate.
            gated = stream.parts if gate is None else now
            if ends and gated & branch.through:
                added.averaged.update(ends)
        return None
