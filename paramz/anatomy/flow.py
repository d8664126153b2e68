"""What one run of a model shows of its matrices: where their outputs go, and what they sum over.

`paramz.anatomy.follower` makes it. A map from width into a fixed size is a readout if what it makes
reaches the model's output through no other matrix that grows; else it is a bottleneck inside the
network. Shapes cannot tell the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from paramz.anatomy.paths import unnumbered

T = TypeVar("T")


class Stretch(NamedTuple):
    """What is known of a stretch of memory.

    Attributes:
        weights: the matrices that it is a function of, where it depends on no input.
        data: it depends on the model's input.
        fresh: matrices that made it, with no other one since.
        wide: it has been through a matrix that grows.
        whole: those of ``fresh`` over whose growing axes no sum ran on the way.
    """

    weights: frozenset[str] = frozenset()
    data: bool = False
    fresh: frozenset[str] = frozenset()
    wide: bool = False
    whole: frozenset[str] = frozenset()

    def merged(self, other: Stretch) -> Stretch:
        """What is known of what both go into."""
        return Stretch(
            self.weights | other.weights,
            self.data or other.data,
            self.fresh | other.fresh,
            self.wide or other.wide,
            self.whole | other.whole,
        )


@dataclass(frozen=True)
class Flow:
    """What one run showed of the matrices that grow.

    Attributes:
        used: names of those that the run used.
        read: names of those whose output reaches the model's output through none of the others.
        feeds: names of those whose output goes on into one of the others, read or not.
        fed: names of those whose input was made by one of them.
        summed: name -> the axes over which products with data sum, once for every way that occurs.
        paired: name -> the axes that such products have in common with the data, as experts'.
        normed: names of those whose output, or a slice of it, goes into a norm by itself.
        looked_up: names of those of which the model's input chooses rows.
        beside: names of those whose entries are added to data, or stand beside it, and no more.
        gains: names of those that multiply data entry by entry, of which no sum is taken then.
        growing: name -> the axes along which it grows. What a run shows of one in a block holds for
            those in others that grow along the same.
    """

    used: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    feeds: frozenset[str] = frozenset()
    fed: frozenset[str] = frozenset()
    summed: Mapping[str, frozenset[tuple[int, ...]]] = field(default_factory=dict)
    paired: Mapping[str, frozenset[int]] = field(default_factory=dict)
    normed: frozenset[str] = frozenset()
    looked_up: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    gains: frozenset[str] = frozenset()
    growing: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def tells_of(self, names: Iterable[str]) -> bool:
        """Whether of every matrix that one, or one of its kind in another block, was used."""
        return all(self._kind(name) in self._kinds for name in names)

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
        return self._noted(name, self.summed)

    def pairs(self, name: str) -> frozenset[int]:
        """The axes of a matrix of which each has data of its own; empty if the run shows none."""
        return self._noted(name, self.paired)

    def looks_up(self, name: str) -> bool:
        """Whether the run shows that the model's input chooses rows of a matrix."""
        return bool(self._found(name, self.looked_up))

    def stands_beside(self, name: str) -> bool:
        """Whether the run shows that a matrix does no more than stand beside data."""
        return bool(self._found(name, self.beside))

    def is_gain(self, name: str) -> bool:
        """Whether the run shows that a matrix does no more than multiply data entry by entry."""
        return bool(self._found(name, self.gains))

    def _noted(self, name: str, noted: Mapping[str, frozenset[T]]) -> frozenset[T]:
        if name in self.used:
            return noted.get(name, frozenset())
        kind = self._kind(name)
        key = kind, id(noted)
        if key not in self._answers:
            alike = {noted.get(n, frozenset()) for n in self._kinds.get(kind, ())}
            self._answers[key] = alike.pop() if len(alike) == 1 else frozenset()
        answer: frozenset[T] = self._answers[key]
        return answer

    def _found(self, name: str, which: frozenset[str]) -> bool | None:
        """Of a matrix in a block that did not run, what was found in the others."""
        if name in self.used:
            return name in which
        kind = self._kind(name)
        key = kind, id(which)
        if key not in self._answers:
            found = {n in which for n in self._kinds.get(kind, ())}
            self._answers[key] = found.pop() if len(found) == 1 else None
        answer: bool | None = self._answers[key]
        return answer

    def _kind(self, name: str) -> tuple[str, frozenset[int]]:
        """What it has in common with its likes in other blocks; the last may read out."""
        return unnumbered(name), self.growing.get(name, frozenset())

    @cached_property
    def _answers(self) -> dict[tuple[Any, int], Any]:
        """What was found out for the matrices of one kind, by the field that was asked."""
        return {}

    @cached_property
    def _kinds(self) -> Mapping[tuple[str, frozenset[int]], list[str]]:
        kinds: dict[tuple[str, frozenset[int]], list[str]] = {}
        for name in self.used:
            kinds.setdefault(self._kind(name), []).append(name)
        return kinds
