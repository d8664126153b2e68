"""Axes of which a part stays while the rest grows: several maps fused into one tensor.

Queries of a growing number of heads beside keys and values of one head (Falcon-7B, GPTBigCode), or
the channels of a state-space layer beside its fixed state (Mamba 2). Such an axis is a m + b. What
its growing part does is the tensor's ratio; the rest is a map of its own, with a role of its own.
Shapes tell how many rows that are, and a run (`paramz.anatomy.spans`) which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache

Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape, Shape]


def find_slices(shapes: Mapping[str, Shapes]) -> dict[str, dict[int, int]]:
    """Name -> axis -> how many of its rows stay, for axes whose other rows grow with width.

    An axis counts where the same number of rows is left over in the wider probe and in the target.

    Args:
        shapes: name -> the tensor's shapes in the base, the wider probe and the target.

    >>> find_slices({"a": ((8, 8), (16, 16), (32, 32)), "qkv": ((12, 8), (20, 16), (36, 32))})
    {'qkv': {0: 4}}
    """
    usual = _usual((b, w) for base, wider, _ in shapes.values() for b, w in _grown(base, wider))
    target = _usual((b, t) for base, _, whole in shapes.values() for b, t in _grown(base, whole))
    left = cache(lambda b, w: _stays(b, w, usual))
    found: dict[str, dict[int, int]] = {}
    for name, (base, wider, whole) in shapes.items():
        if not len(base) == len(wider) == len(whole):
            continue
        for axis, (b, w, t) in enumerate(zip(base, wider, whole, strict=True)):
            stays = left(b, w) if w != b else 0
            if 0 < stays < b and t - stays == target * (b - stays):
                found.setdefault(name, {})[axis] = stays
    return found


def _grown(one: Shape, other: Shape) -> list[tuple[int, int]]:
    return [(b, w) for b, w in zip(one, other, strict=False) if b != w]


def _usual(pairs: Iterable[tuple[int, int]]) -> Fraction:
    """The ratio that most pairs have; of several the first one."""
    ratios: Counter[Fraction] = Counter()
    for (one, other), times in Counter(pairs).items():
        if one == 0:
            continue  # MobileBERT at hidden_size = embedding_size has a matrix without columns
        ratios[Fraction(other, one)] += times
    return ratios.most_common(1)[0][0] if ratios else Fraction(1)


def _stays(base: int, wider: int, ratio: Fraction) -> int:
    """The b of base = a m + b and wider = ratio a m + b, if it is whole; else 0."""
    b = (ratio * base - wider) / (ratio - 1) if ratio != 1 else Fraction(0)
    return int(b) if b.denominator == 1 else 0
