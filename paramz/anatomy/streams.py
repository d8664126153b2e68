"""A run of a model, read for what it adds to what.

`paramz.anatomy.sums` asks. In ``x + branch(x)`` the second term was made from the first one through
a matrix. Only operations are looked at.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy.degrees import NORMS, degree_of
from paramz.anatomy.memory import Known
from paramz.anatomy.nested import Sums
from paramz.anatomy.runs import tensors_in
from paramz.anatomy.tensors import chooses, is_line
from paramz.anatomy.terms import Added, State, multiplied

# Operations after which a tensor is the one that it was before.
_SAME = frozenset({"clone", "_to_copy", "detach", "alias", "native_dropout", "copy_"})
_SUMS = frozenset({"add", "add_", "sub", "sub_", "lerp", "lerp_"})
_TIMES = frozenset({"mul", "mul_", "div", "div_"})
_FUSED = {"addcmul": "mul", "addcdiv": "div"}
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


class Reader(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes sums while a model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = Known(State())
        self._added = Added()
        self._count = 0
        self._behind: dict[str, frozenset[str]] = {}  # module that came behind ends -> these
        self._elsewhere: set[str] = set()  # modules that put out something else, too
        self._put_out: dict[int, str] = {}  # number of a tensor -> the first module that put it out
        # What mixes something with what was made of it -> numbers of that, and the matrices.
        self._mixed: dict[int, tuple[frozenset[int], frozenset[str]]] = {}
        self._sums = Sums()

    def added(self) -> Added:
        """What was found."""
        for end, by in self._added.lost.items():
            if by in self._elsewhere:  # a factor on what it puts out would be one on that, too
                self._added.lost[end] = ""
        self._added.inner.update(self._sums.inner())
        return self._added

    def end(self, path: str, outputs: list[Tensor]) -> None:
        """A known end of a branch puts these out."""
        for tensor in outputs:
            state = self.known.of(tensor)
            if state.data:
                made = state.behind(path)._replace(fresh=frozenset(), ended=True)
                self.known.put(tensor, made)

    def left(self, path: str, outputs: list[Tensor], inputs: list[Tensor]) -> None:
        """A module puts these out: a norm, say, if the sizes of ends outside of it were lost in it.

        The outermost one counts, as a norm with parts may have a gain and a bias of its own.
        """
        state, inside = self.known.of(outputs[0]) if len(outputs) == 1 else State(), f"{path}."
        ends = self._ends(state.tips)
        self._put_out.setdefault(state.at, path)
        summed = frozenset(end for end in state.last if end.startswith(inside))
        if path.rpartition(".")[2].isdigit() and summed:  # the output of a block is the stream
            self._added.averaged.update(summed if state.scaled else ())
            self._added.bare.update(state.alone)
        if path.rpartition(".")[2].isdigit():
            self._added.averaged.update(self._gating(state.at, inputs), state.pending)
        whole = state.degree == 1 and not all(tip.startswith(inside) for tip in state.tips)
        if not ends or state.fresh or whole or any(f"{e}.".startswith(inside) for e in ends):
            self._elsewhere.add(path)
        elif path:
            self._behind[path] = ends
            self.known.put(outputs[0], state.behind(path))

    def _gating(self, output: int, inputs: list[Tensor]) -> frozenset[str]:
        """Matrices of what a block mixes with its own input by gates, as GTrXL's does.

        What a recurrence inside of a branch mixes is none of its input.
        """
        numbers, names, new = set[int](), frozenset[str](), {output}
        while new:
            numbers |= new
            mixes = [self._mixed[n] for n in new if n in self._mixed]
            names = names.union(*(made for _, made in mixes))
            new = set[int]().union(*(of for of, _ in mixes)) - numbers
        given = {n for x in inputs if (s := self.known.of(x)).data for n in (s.at, *s.same)}
        return names if numbers - {output} and given & numbers else frozenset()

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
        if (factor := (kwargs or {}).get("alpha", 1)) != 1 and len(found) > 1:
            found[1] = self._made("mul", (args[1], factor), given[1:2], found[1:2])
        made = self._made(name, args, given, found)
        for number, tensor in enumerate(tensors_in(out)):
            view = tensor.untyped_storage()._cdata in memories and not name.endswith("_")
            if not view and name not in _SAME | NORMS:
                self._added.averaged.update(*(state.pending for state in found))
            if not view:
                self.known.put(tensor, made)
            if number == 0 and name == "var_mean":
                self.known.put(tensor, made._replace(degree=2 * made.degree))
        return out

    def _made(self, name: str, args: Any, given: list[Tensor], found: list[State]) -> State:
        if name.rstrip("_") in ("addcmul", "addcdiv"):  # a sum with a product
            product = self._made(_FUSED[name.rstrip("_")], args[1:3], given[1:], found[1:])
            return self._made("add", args[:1], given[:2], [found[0], product])
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
        # As in squeeze and excitation: a factor on what is kept is one on what its gate is made of.
        own = {number for state in kept for number in (state.at, *state.same)}
        gated = name in _PRODUCTS and any(s.through & own for s in data if s not in kept)
        linear = name not in _BENDS and (len(data) == 1 or name not in _PRODUCTS | {"div"})
        added = bare if name in _JOINS else frozenset()
        stacked = multiplied(data[0].stacked) if name in _TIMES and len(data) == 1 else ()
        mixing = name in _PRODUCTS and all(s.through for s in data)  # no mask is made by a matrix
        return State(
            True,
            bare=frozenset[str]().union(added, *(s.bare for s in data)) if linear else frozenset(),
            at=self._count,
            through=through,
            near=near,
            fresh=frozenset[str]().union(*(state.fresh for state in kept)),
            tips=frozenset[str]().union(*(state.tips for state in kept)),
            degree=math.nan if gated else degree_of(name, args, moving),
            times=kept[0].times if len({state.times for state in kept}) == 1 else None,
            ended=len(ended) == len(kept),
            bent=gated or name in _BENDS or any(state.bent for state in kept),
            parts=frozenset(s.at for s in data) if mixing else frozenset(),
            stacked=tuple(data) if name == "stack" and len(data) == 2 else stacked,
            holds=frozenset[int]().union(*(s.holds for s in data if name in _TIMES)),
            blended=frozenset[str]().union(*(s.blended for s in data if name in _TIMES)),
            blenders=frozenset[str]().union(*(s.blenders for s in data if name in _TIMES)),
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
            if number is not None:
                state = state._replace(times=(state.times or 1.0) * _factor(name, number))
            if number == 1 or (gain and not weighed):
                return state
            state = state._replace(weighed=state.weighed or gain)
            self._count += 1
            scaled, same = state.scaled or bool(state.last), state.same | {state.at}
            stacked = multiplied(state.stacked)
            return state._replace(at=self._count, same=same, scaled=scaled, stacked=stacked)
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
            if self._holds_stream(name, stream, branch):
                return State(True, streams=now, last=branch.blended)
            if gate is None and before & branch.through:
                # What a gated recurrence mixes, as n + z * (h - n), is no branch, nor are values
                # that learnt weights mix with those of the first block.
                other_way = stream.weighed or (branch.bent and "sub" in name)
                fresh = frozenset[str]() if other_way else branch.fresh
                self._sums.note(self._count, stream, branch, fresh, ends)
                added.unended.update(fresh)
                added.bent.update(fresh if branch.bent else ())
                numbers = branch.at, *sorted(branch.same, reverse=True)
                if out := next((self._put_out[n] for n in numbers if n in self._put_out), ""):
                    added.outs.update(dict.fromkeys(fresh, out))
                added.ended.update(ends)
                if branch.times is not None:
                    for end in ends:
                        added.numbers.setdefault(end, set()).add(branch.times)
                added.bare.update(branch.bare | stream.alone)
                averaged = stream.scaled or mixed or earlier & branch.through
                if branch.degree == 1:
                    behind = (tip for tip in branch.tips if tip in self._behind)
                    added.lost.update((e, tip) for tip in behind for e in self._behind[tip])
                else:
                    added.lost.update((end, "") for end in ends)
                # What comes of f(x) - x is a branch that holds the stream itself.
                less = stream is other and name.startswith("sub")
                holds = now | stream.same if less else frozenset[int]()
                return State(
                    True,
                    streams=before,
                    last=ends,
                    holds=holds,
                    blended=ends | fresh,
                    blenders=branch.fresh,
                    pending=ends | fresh if averaged else frozenset(),
                )
            # As in a highway: x * (1 - gate) + f(x) * gate.
            gated = stream.parts if gate is None else now
            if gated & branch.through:
                added.averaged.update(ends)
                self._mixed[self._count] = gated, branch.fresh
        return None

    def _holds_stream(self, name: str, stream: State, branch: State) -> bool:
        """Whether what is added holds the stream itself, as in ``x + t * (f(x) - x)``."""
        now = stream.same | {stream.at}
        scaled = branch.streams & now if branch.scaled else frozenset[int]()  # x - t * (x - f(x))
        less = branch.streams & stream.same if name.startswith("sub") else frozenset[int]()
        if scaled or less:  # (x + f(x)) - t * x
            self._added.averaged.update(branch.last)
        if not now & branch.holds:
            return False
        self._added.averaged.update(branch.blended)
        self._mixed[self._count] = now, branch.blenders
        return True


def _factor(name: str, number: float) -> float:
    """By what a product with a number, or a quotient, multiplies."""
    return 1 / number if name.startswith("div") and number else float(number)
