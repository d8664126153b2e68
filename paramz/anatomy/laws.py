"""Laws of random numbers: what a tensor that was drawn, scaled or filled holds, without its values.

A `Law` is that of one entry. A tensor holds `Pieces`: stretches of its memory, each with the law
of its entries, as a weight of which one row was set to zero afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

_STANDARD = NormalDist()
_INF = math.inf


@dataclass(frozen=True, slots=True)
class Law:
    """The law of one entry.

    Attributes:
        kind: ``constant`` (low = high), ``uniform`` from low to high, or ``normal``, of which only
            what lies between low and high is left.
        low, high: the ends.
        mean, std: of a normal law before it was cut; 0 for others.
    """

    kind: Literal["constant", "uniform", "normal"]
    low: float
    high: float
    mean: float = 0.0
    std: float = 0.0

    @property
    def rms(self) -> float:
        """Root of the mean square, sqrt(E x^2).

        A cut normal law has the moments of the truncated normal distribution (Johnson, Kotz and
        Balakrishnan, Continuous Univariate Distributions 1, 13.10.1).
        """
        if self.kind == "constant":
            return abs(self.low)
        if self.kind == "uniform":
            if self.low == -self.high:
                return self.high / math.sqrt(3.0)
            return math.sqrt((self.low**2 + self.low * self.high + self.high**2) / 3.0)
        if self.low == -_INF and self.high == _INF:
            return math.hypot(self.mean, self.std)
        ends, heights, mass = self._cut()
        edges = [0.0 if math.isinf(e) else e * h for e, h in zip(ends, heights, strict=True)]
        shift = (heights[0] - heights[1]) / mass
        variance = 1.0 + (edges[0] - edges[1]) / mass - shift**2
        return math.hypot(self.mean + self.std * shift, self.std * math.sqrt(variance))

    @property
    def center(self) -> float:
        """The mean, E x."""
        if self.kind != "normal":
            return (self.low + self.high) / 2.0
        _, heights, mass = self._cut()
        return self.mean + self.std * (heights[0] - heights[1]) / mass

    def _cut(self) -> tuple[list[float], list[float], float]:
        """Ends of a normal law in its stds, the density there, and what lies between them."""
        ends = [(end - self.mean) / self.std for end in (self.low, self.high)]
        mass = _STANDARD.cdf(ends[1]) - _STANDARD.cdf(ends[0])
        return ends, [_STANDARD.pdf(end) for end in ends], mass

    def largest(self, size: int) -> float:
        """The largest absolute entry of ``size`` ones: its median, where it has no end."""
        end = max(abs(self.low), abs(self.high))
        if self.kind != "normal":
            return end
        reach = _STANDARD.inv_cdf((1.0 + 0.5 ** (1.0 / size)) / 2.0)
        return min(end, abs(self.mean) + self.std * reach)

    def times(self, factor: float) -> Law:
        """The law of an entry times a number."""
        if factor == 0.0:
            return constant(0.0)
        low, high = sorted((self.low * factor, self.high * factor))
        return replace(
            self, low=low, high=high, mean=self.mean * factor, std=self.std * abs(factor)
        )

    def plus(self, number: float) -> Law:
        """The law of an entry plus a number."""
        mean = self.mean + number if self.kind == "normal" else 0.0
        return replace(self, low=self.low + number, high=self.high + number, mean=mean)

    def between(self, low: float, high: float) -> Law | None:
        """The law of an entry that was drawn again until it lay between two numbers.

        None where next to nothing lies there.
        """
        low, high = max(low, self.low), min(high, self.high)
        if low > high or (low == high) != (self.kind == "constant"):
            return None
        if self.kind == "normal":
            ends = [(end - self.mean) / self.std for end in (low, high)]
            if _STANDARD.cdf(ends[1]) - _STANDARD.cdf(ends[0]) < 1e-6:
                return None
        return replace(self, low=low, high=high)


def constant(value: float) -> Law:
    """The law of entries that are all one number.

    >>> constant(-2.0).rms
    2.0
    """
    return Law("constant", value, value)


def uniform(low: float, high: float) -> Law:
    """The uniform law from low to high.

    >>> round(uniform(-3.0, 3.0).rms, 6), round(uniform(0.0, 3.0).rms, 6)
    (1.732051, 1.732051)
    """
    return constant(low) if low == high else Law("uniform", low, high)


def normal(mean: float, std: float) -> Law:
    """The normal law.

    >>> normal(0.0, 0.5).rms, normal(3.0, 4.0).rms, round(normal(0.0, 1.0).between(-2, 2).rms, 4)
    (0.5, 5.0, 0.8796)
    """
    return constant(mean) if std == 0.0 else Law("normal", -_INF, _INF, mean, std)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of memory, in entries from the start of the storage, and the law of its entries.

    Attributes:
        start, stop: from the first entry to before the last one.
        law: None where it is not known.
    """

    start: int
    stop: int
    law: Law | None


Pieces = tuple[Piece, ...]


def write(pieces: Pieces, new: Piece) -> Pieces:
    """The pieces after one stretch was written over.

    >>> zero, one = constant(0.0), constant(1.0)
    >>> [(p.start, p.stop, p.law.low) for p in write((Piece(0, 6, zero),), Piece(2, 3, one))]
    [(0, 2, 0.0), (3, 6, 0.0), (2, 3, 1.0)]
    """
    return tuple(
        left
        for old in pieces
        for left in (
            replace(old, stop=min(old.stop, new.start)),
            replace(old, start=max(old.start, new.stop)),
        )
        if left.start < left.stop
    ) + (new,)


def within(pieces: Pieces, start: int, stop: int) -> Pieces:
    """What of the pieces lies in a stretch.

    >>> within((Piece(0, 6, None),), 4, 9)
    (Piece(start=4, stop=6, law=None),)
    """
    cut = (replace(p, start=max(p.start, start), stop=min(p.stop, stop)) for p in pieces)
    return tuple(p for p in cut if p.start < p.stop)


def known(pieces: Pieces, size: int) -> Sequence[tuple[int, Law]]:
    """Number of entries and law of every piece; nothing if a law is missing or entries are.

    >>> known((Piece(0, 6, constant(0.0)),), 7)
    []
    """
    found = [(p.stop - p.start, p.law) for p in pieces if p.law is not None]
    return found if sum(number for number, _ in found) == size else []
