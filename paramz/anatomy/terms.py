"""What a run of a model notes of its tensors, as terms of sums, and what it finds in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


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
        times: what numbers in the code have multiplied it by since these ends; None if none have.
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
        holds: numbers of the stream that it is a sum with, times a number, as in ``f(x) - x``.
        blended: the ends of that sum.
        blenders: the matrices that made its other term, where no end did.
        pending: ends and matrices of a sum whose stream was multiplied, until something other than
            a norm takes the sum: a norm takes the size off, as DeepNorm's does.
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
    times: float | None = None
    ended: bool = False
    bent: bool = False
    streams: frozenset[int] = frozenset()
    last: frozenset[str] = frozenset()
    scaled: bool = False
    alone: frozenset[str] = frozenset()
    weighed: bool = False
    parts: frozenset[int] = frozenset()
    stacked: tuple[Any, ...] = ()
    holds: frozenset[int] = frozenset()
    blended: frozenset[str] = frozenset()
    blenders: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()

    def behind(self, path: str) -> State:
        """The same as the output of a module that ends a branch."""
        return self._replace(tips=frozenset([path]), degree=1.0, times=None)


def multiplied(terms: tuple[State, ...]) -> tuple[State, ...]:
    """The terms of a stack that numbers multiply."""
    return tuple(term._replace(scaled=True) for term in terms)


@dataclass(frozen=True)
class Added:
    """What a model adds to what it was made from.

    Attributes:
        unended: names of the matrices that made it, where no known end did.
        ended: paths of the known ends that made it.
        bent: those of the matrices after which there is a nonlinearity.
        outs: of the matrices, path of the first module that puts out what is added; those of which
            code outside of modules makes it are left out.
        lost: known end, of whose output a norm or a nonlinearity takes the size before it is added
            -> path of the module that puts out what is added, empty where none does.
        averaged: known ends, and matrices, of what is added to a stream that is multiplied itself.
        bare: names of parameters that are added by themselves, as biases behind an end.
        numbers: known end -> what numbers in the code multiply its output by before it is added,
            one for each of its sums; those that none multiply are left out.
        gates: known ends whose output a sigmoid or the like makes a gate on that of another end.
        inner: matrix whose sums all lie inside of branches -> ends, and matrices, of these.
        ran: the model ran, so that the run would show these.
    """

    unended: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    bent: set[str] = field(default_factory=set)
    outs: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    averaged: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    numbers: dict[str, set[float]] = field(default_factory=dict)
    gates: set[str] = field(default_factory=set)
    inner: dict[str, set[str]] = field(default_factory=dict)
    ran: bool = True
