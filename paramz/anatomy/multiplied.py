"""Every product of two activations in one run of a model, and sums of one, and what made them.

Products of an activation and a parameter are what layers do. A product of two activations sums
over what both have: channels of a head, tokens, or the width of two towers. Tensors are followed by
their memory, as in `paramz.anatomy.flow`: which matrix made them, whether they are of length one,
and which numbers have multiplied them since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy import operations as ops
from paramz.anatomy.generated import PRODUCTS, Term, Terms, is_generated, summed, terms_of
from paramz.anatomy.made import Made, gains_of, is_unit, length_kind, paired_of
from paramz.anatomy.memory import Known
from paramz.anatomy.runs import copied_to, device_of, outputs, run, tensors_in


@dataclass(frozen=True, slots=True)
class Seen:
    """One product: the matrices before its factors, the length of its sum, and what takes it.

    ``factor`` is that of all numbers which multiply it, before and after; ``unit`` says that its
    factors are vectors of length one, ``data`` that both depend on the model's input, ``normed``
    that a norm takes it, or it is divided by another one, ``alone`` that it is a sum of one
    activation, or its length, whose ``size`` is then the root, ``average`` that one factor is a
    softmax over that axis, ``gains`` the parameters that multiply its factors. ``terms`` are the
    summands of a factor that the model computes from its parameters alone; ``held`` is the
    parameter that makes a factor alone, through a norm; ``entry`` says that it is no product but
    what the model computes from its parameters alone, beside data entry by entry.
    """

    made: tuple[frozenset[str], frozenset[str]]
    size: float
    factor: float
    unit: bool
    data: bool = False
    softmax: bool = False
    at_output: bool = False
    normed: bool = False
    alone: bool = False
    average: bool = False
    gains: tuple[str, ...] = ()
    terms: Terms = ()
    held: str = ""
    entry: bool = False


def products_of(model: nn.Module, inputs: Any, kept: int | None) -> list[Seen]:
    """Run a model once and list the products of two activations that it computes.

    Args:
        model: on any device; it runs in eval mode and is left as it was.
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run; None: all of them.

    >>> import torch
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.q, self.k = nn.Linear(4, 8), nn.Linear(4, 8)
    ...     def forward(self, x):
    ...         return (self.q(x) @ self.k(x).T * 0.5).softmax(-1) @ x
    >>> (seen,) = products_of(Net(), torch.zeros(3, 4), None)
    >>> seen.size, seen.factor, seen.softmax
    (8, 0.5, True)
    """
    watcher = _Watcher()
    for name, parameter in model.named_parameters():
        own = frozenset([name])
        watcher.known.put(parameter, Made(own, raw=True, terms=(Term(own),)))
    moved = copied_to(device_of(model), inputs)
    for tensor in tensors_in(moved):
        watcher.known.put(tensor, Made(data=True))
    for tensor in outputs(run(model, moved, watcher, kept)):
        watcher.end(watcher.state(tensor))
    return [
        one
        for number, one in enumerate(watcher.seen)
        if all(one.made) and (one.at_output or not one.alone or number in watcher.taken)
    ]


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes products while a model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Seen] = []
        self.known = Known(Made())
        self.taken: set[int] = set()  # sums of one activation that a map, softmax or gate takes
        self._attention: set[int] = set()  # products of whose softmax another product was taken

    def end(self, state: Made) -> None:
        """Something of this state is the model's output."""
        for number in state.pending | state.sums:
            self.seen[number] = replace(self.seen[number], at_output=self.seen[number].data)
        for number in state.soft - self._attention:
            data = self.seen[number].data
            self.seen[number] = replace(self.seen[number], at_output=data, softmax=not data)

    def state(self, tensor: Any) -> Made:
        """What is known of one factor, which may be a number."""
        return self.known.of(tensor) if isinstance(tensor, Tensor) else Made()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [self.state(x) for x in tensors_in((args, kwargs))]
        if any(state.data or state.made for state in found) and not func.is_view:
            name = func.overloadpacket.__name__.removesuffix("_")  # add_ is add, in place
            made = self._made(name, args, kwargs, found)
            if not made.data:
                made = made._replace(terms=terms_of(name, args, [s.terms for s in found]))
            for tensor in tensors_in(out):  # what an argmin chooses has no size that grows
                sized = tensor.is_floating_point() or tensor.is_complex()
                self.known.put(tensor, made if sized else made._replace(sums=frozenset()))
        return out

    def _made(self, name: str, args: Any, kwargs: Any, found: list[Made]) -> Made:
        data = any(state.data for state in found)
        for one in found if data and name not in PRODUCTS else ():
            if not one.data and is_generated(one.terms):
                size, both = max(math.prod(t.sums) for t in one.terms), (one.made, one.made)
                self.seen.append(Seen(both, size, 1.0, False, terms=one.terms, entry=True))
        if name.startswith("_scaled_dot_product"):
            q, k, v = map(self.state, args[:3])
            scale = (kwargs or {}).get("scale") or args[0].shape[-1] ** -0.5
            number = self._note(q._replace(factor=q.factor * scale), k, args[0].shape[-1])
            self.seen[number] = replace(self.seen[number], softmax=True)
            return Made(v.made, data)
        if name in PRODUCTS:
            left, right = map(self.state, args[:2] if name == "convolution" else args[-2:])
            if name != "convolution" or (left.data and (right.data or is_generated(right.terms))):
                return self._product(left, right, summed(name, args), data)
        if name in ops.LAYERS:
            weights = [state.made for state in found if state.raw]
            self.taken.update(*(state.sums for state in found))
            return Made(weights[0] if weights else frozenset(), data)
        made = frozenset[str]().union(*(s.made for s in found if s.data == data))
        pending = frozenset[int]().union(*(s.pending for s in found))
        if name in ops.SOFTMAXES or (name in ops.EXPONENTIALS and pending):
            for number in pending:
                self.seen[number] = replace(self.seen[number], softmax=True)
            self.taken |= found[0].sums
            shares = args[0].shape[args[1]] if name in ops.SHARES and args[0].ndim else 0
            return Made(made, data, soft=pending, shares=shares)
        ratio = name == "div" and len(found) == 2 and all(s.pending for s in found)
        if (
            name in ops.SIZE_TAKEN or ratio
        ):  # of two sums over the same axis the ratio does not grow
            for number in pending:
                self.seen[number] = replace(self.seen[number], normed=True)
        if name == "sum" and found[0].paired is not None and len(args) > 1 and args[1]:
            size = math.prod(args[0].shape[axis] for axis in args[1])
            pair = found[0].paired
            # Of one fused map it may also be a square that is computed twice.
            square = "square" if pair[0].made == pair[1].made else ""
            return self._product(*pair, size, data)._replace(length=square)
        times = ops.number_of(name, args) if len(found) == 1 else 1.0
        sums = self._sums(name, args, kwargs, found)
        for number in pending | sums if times != 1.0 else ():
            self.seen[number] = replace(self.seen[number], factor=self.seen[number].factor * times)
        same = times != 1.0 or name in ops.SAME or name in ("mul", "div")
        paired = paired_of(name, args, found)
        for each in paired or ():  # what a softmax gives weighs others
            self._attention |= each.soft
        return Made(
            made,
            data,
            raw=not data,
            factor=math.prod(s.factor for s in found) * times if same else 1.0,
            unit=is_unit(name, found) if same else False,
            length=length_kind(name, args, found),
            paired=paired,
            pending=pending,
            soft=frozenset[int]().union(*(s.soft for s in found)),
            sums=sums,
            shares=found[0].shares if same else 0,
            gains=gains_of(found, data) if same else (),
            held=not data and any(s.made and (s.held or name in ops.SIZE_TAKEN) for s in found),
        )

    def _sums(self, name: str, args: Any, kwargs: Any, found: list[Made]) -> frozenset[int]:
        """The sums of one activation that an operation's result holds, itself among them."""
        kept = frozenset[int]().union(*(s.sums for s in found))
        one = found[0]
        root = name in ("sqrt", "pow") and (name == "sqrt" or args[1] == 0.5)
        for number in kept if root else ():
            seen = self.seen[number]
            self.seen[number] = replace(seen, size=seen.size**0.5, factor=seen.factor**0.5)
        # Of what parameters multiply entry by entry a sum is a map, with a rule of its own.
        over = name in ops.LENGTHS | ops.DISTANCES or (name == "sum" and not one.gains)
        if over and one.data and one.made:
            size = ops.summed_over(name, args, kwargs)
            self.seen.append(Seen((one.made, one.made), size, one.factor, False, True, alone=True))
            return frozenset([len(self.seen) - 1])
        if name in ops.GATES:
            self.taken |= kept
        divides = name == "pow" and isinstance(args[1], int | float) and args[1] < 0
        if name in ops.UNGROWN or divides:
            return frozenset()
        if name == "div" and len(found) == 2:  # what divides makes smaller, if it is not a norm's
            return frozenset() if found[1].sums else one.sums
        single = sum(state.data for state in found) == 1
        return kept if single or name == "mul" or name in ops.KEEP_SUMS else frozenset()

    def _product(self, left: Made, right: Made, size: float, data: bool) -> Made:
        self._attention |= left.soft | right.soft
        self.taken |= left.sums | right.sums
        # What the model computes from its parameters alone, and multiplies data by.
        terms = next((o.terms for o in (left, right) if data and not o.data), ())
        generated = is_generated(terms)
        held = data and any(not o.data and o.held for o in (left, right))
        if ((left.raw or right.raw) and not (generated or held)) or not (left.made and right.made):
            raw = [state.made for state in (left, right) if state.raw or not state.data]
            known = raw and (raw[-1] or data)  # a table is known by the weight behind it
            return Made(raw[-1] if known else left.made | right.made, data)
        if held:  # of length one, or of entries one, as what it multiplies may be, too
            size = math.pow(size, sum(0.5 for o in (left, right) if not o.unit))
        both = held or (left.data and right.data)
        number = self._note(left, right, size, both, terms * generated)
        return Made(left.made | right.made, data, pending=frozenset([number]))

    def _note(
        self, left: Made, right: Made, size: float, data: bool = False, terms: Terms = ()
    ) -> int:
        factor, unit = left.factor * right.factor, left.unit and right.unit
        average, made = size in (left.shares, right.shares), (left.made, right.made)
        seen = Seen(made, size, factor, unit, data, average=average, terms=terms)
        held = next((min(o.made) for o in (left, right) if o.raw and o.held and o.made), "")
        self.seen.append(replace(seen, gains=left.gains + right.gains, held=held))
        return len(self.seen) - 1
