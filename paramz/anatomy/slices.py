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

from paramz.anatomy.probes import Probes
from paramz.anatomy.tensors import read_shapes

# Far from the wider probe, which has twice the width: what rounding adds is small beside it there.
_TIMES = 9

Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape, Shape]


def slices_of(shapes: Mapping[str, Shapes], probes: Probes) -> dict[str, dict[int, int]]:
    """`find_slices`, of which a third probe shows the same, where a factory can build one.

    Args:
        shapes: name in the target -> its shapes in the base, the wider probe and the target.
        probes: the base and the wider model.
    """
    found = find_slices(shapes)
    third = probes.at(_TIMES) if found and probes.at is not None else None
    if third is None:
        return found
    read = read_shapes(third)
    twins = {name: probes.twin_name(name) or name for name in shapes}
    return in_a_third(
        found, shapes, {name: read[twin] for name, twin in twins.items() if twin in read}
    )


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


def in_a_third(
    slices: Mapping[str, Mapping[int, int]],
    shapes: Mapping[str, Shapes],
    third: Mapping[str, Shape],
) -> dict[str, dict[int, int]]:
    """Those slices that a third probe has as well.

    Sizes that are rounded up lie on a line through two widths, too, and mostly through a target of
    two or three times the base's width: 176, 344 and 512 are 168 times 1, 2 and 3, and 8, and they
    are 8/3 of 64, 128 and 192 in steps of 8.

    Args:
        slices: as `find_slices` finds them.
        shapes: as for `find_slices`.
        third: name -> shape in the third probe; tensors without one count as they are.

    >>> shapes = {"a": ((64, 64), *2 * [(128, 128)]), "up": ((176, 64), *2 * [(344, 128)])}
    >>> found = find_slices(shapes)
    >>> found, in_a_third(found, shapes, {"a": (576, 576), "up": (1536, 576)})
    ({'up': {0: 8}}, {})
    """
    pairs = (_grown(shapes[name][0], shape) for name, shape in third.items() if name in shapes)
    ratio = _usual(pair for each in pairs for pair in each)

    def stays(name: str, axis: int, number: int) -> bool:
        base, shape = shapes[name][0], third.get(name, ())
        return len(shape) != len(base) or shape[axis] - number == ratio * (base[axis] - number)

    checked = {
        name: {axis: number for axis, number in found.items() if stays(name, axis, number)}
        for name, found in slices.items()
    }
    return {name: found for name, found in checked.items() if found}


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
