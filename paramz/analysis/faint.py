"""What may shrink with width because it comes out of a map that starts faint.

A map into a bottleneck starts like a readout, with a std of 1/width: what it makes before training
is a random sum that shrinks like width^-1/2, and what it learns keeps its size. The same holds for
what is made of it alone, until a sum joins it with something else. Shrinking there is no error;
growing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paramz.analysis.slopes import NEXT, Slope, hardly_falls

FAINT = "inward"
"""The role of maps that start faint."""


def excuse_faint(slopes: Sequence[Slope], tolerance: float) -> list[Slope]:
    """The slopes, with those passed that shrink because a map before them starts faint.

    Where a weight gets something that shrinks before training, everything of its module may shrink.
    Elsewhere after a faint map, a change may, and the size of what has no weight of its own. A
    weight that shrinks what it gets is no such case. An own update may shrink where it keeps its
    size in the control run, in which faint maps start at zero (`paramz.check.zeroed`).

    Args:
        slopes: of one check over width, in forward order.
        tolerance: the largest absolute slope of a limit that is taken to be flat.
    """
    order = {s.module: place for place, s in enumerate(slopes) if s.step == 0}
    maps = {s.module for s in slopes if s.role == FAINT}
    if not maps:
        return list(slopes)
    first = min(order.get(module, 0) for module in maps)
    # What goes into a module that holds such a map is not what its output is made of.
    holders = {module[:at] for module in maps for at, end in enumerate(module) if end == "."}
    inputs = {
        s.module: s.hi
        for s in slopes
        if s.quantity == "input" and s.step == 0 and s.module not in holders
    }

    kept = kept_from_zero(slopes, tolerance)

    def faint(s: Slope) -> bool:
        if s.quantity == "update" and s.module in kept:
            return True
        if s.role == FAINT:
            return s.quantity != "update"
        if order.get(s.module, -1) < first:
            return False
        if inputs.get(s.module, 0.0) < -NEXT / 2:
            return True
        return s.quantity == "delta" or (s.quantity == "output" and s.module not in inputs)

    return [
        replace(s, passed=True, proved=False)
        if s.passed is False and s.slope < 0 and faint(s)
        else s
        for s in slopes
    ]


def kept_from_zero(slopes: Sequence[Slope], tolerance: float) -> set[str]:
    """Modules whose own update keeps its size where the faint maps start at zero."""
    return {
        s.module for s in slopes if s.quantity == "zeroed" and hardly_falls(s.lo, s.hi, tolerance)
    }


def excused_in_words(slopes: Sequence[Slope], axis: str) -> str:
    """A remark on outputs that fall for that reason; empty if none do."""
    if not any(s.role == FAINT for s in slopes):
        return ""
    falls = {s.module for s in slopes if s.quantity == "output" and s.hi < -NEXT / 2}
    remark = (
        f", but for {len(falls)} whose output falls before training, as what a map from {axis} "
        "into a fixed size makes may"
    )
    return remark if falls else ""


def faded_in_words(slopes: Sequence[Slope], tolerance: float) -> str:
    """A remark on updates that shrink as drawn and not from zero; empty if none do."""
    kept = kept_from_zero(slopes, tolerance)
    falls = [s.module for s in slopes if s.quantity == "update" and s.hi < -tolerance]
    faded = [module for module in falls if module in kept]
    if not faded:
        return ""
    return (
        f" ({len(faded)} updates, such as that of {faded[0]}, shrink because what maps into a "
        "fixed size add before training fades with width; with these maps started at zero they do "
        "not)"
    )
