"""Slopes of a coordinate check: how the size of each quantity moves with scale, log against log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paramz.analysis.columns import Array

if TYPE_CHECKING:
    import pandas as pd

# What a check may vary; the table has one of these columns.
AXES = ("width", "depth", "experts")

# A module inside a numbered block, such as blocks.1.attention.
_IN_A_BLOCK = re.compile(r"(^|[.])[0-9]+[.]")
_IN_AN_EXPERT = re.compile(r"(^|[.])experts[.][0-9]+([.]|$)")


def axis_of(df: pd.DataFrame) -> str:
    """The column of a coordinate check that holds its scale.

    Raises:
        ValueError: the table has none of the columns in `AXES`, or several.

    >>> import pandas as pd
    >>> axis_of(pd.DataFrame({"depth": [2, 4], "rms": [1.0, 1.0]}))
    'depth'
    """
    found = [axis for axis in AXES if axis in df.columns]
    if len(found) != 1:
        raise ValueError(
            f"a coordinate check has one of the columns {', '.join(AXES)}; this table has "
            f"{', '.join(df.columns)}"
        )
    return found[0]


@dataclass(frozen=True)
class Slope:
    """How one quantity of one module moves with width (or depth, or experts): log against log.

    Attributes:
        module: its path.
        role: the role of its weight, empty for containers.
        step: updates made so far.
        quantity: ``delta``, ``update`` or ``output``.
        slope: least squares over scales and seeds.
        lo: lower end of its 95 % interval (Student's t over the residuals).
        hi: upper end.
        passed: whether it is within the tolerance; None where it is not judged.
        proved: a failure whose whole interval lies beyond the tolerance.
    """

    module: str
    role: str
    step: int
    quantity: str
    slope: float
    lo: float
    hi: float
    passed: bool | None
    proved: bool = False


def judged_slopes(df: pd.DataFrame, axis: str, tolerance: float) -> list[Slope]:
    """The slopes of a coordinate check in forward order, each judged where it can be.

    Args:
        df: the table of one parametrization, optimizer and learning rate.
        axis: its column of the scale.
        tolerance: the largest absolute slope that passes.

    Returns:
        the slopes; quantities that vanish at one of the scales have none.
    """
    unjudged = _containers_of_readouts(df)
    scales = df[axis].nunique()
    order = {module: i for i, module in enumerate(df[df.step == df.step.max()].module.unique())}
    slopes = []
    for key, cell in df.groupby(["module", "role", "step", "quantity"], sort=False):
        module, role, step, quantity = (str(part) for part in key)
        positive = cell[cell.rms > 0]
        if positive[axis].nunique() < scales:
            continue
        sizes, rms = positive[axis].to_numpy(dtype=float), positive.rms.to_numpy(dtype=float)
        slope, lo, hi = _fit(np.log(sizes), np.log(rms))
        passed, proved = None, False
        if module not in unjudged and not _is_inside(module, axis):
            # A router is a readout to its experts: its change holds the same random sums.
            readout = role == "output" or (axis == "width" and role == "router")
            steep = axis == "width" and readout and slope < -tolerance
            passed = _within(
                _slope_at_largest(sizes, rms) if steep else slope, quantity, tolerance, readout
            )
            proved = passed is False and (lo > tolerance or hi < -tolerance)
        slopes.append(Slope(module, role, int(step), quantity, slope, lo, hi, passed, proved))
    return sorted(slopes, key=lambda s: (s.step, order.get(s.module, -1), s.quantity))


def _containers_of_readouts(df: pd.DataFrame) -> set[str]:
    """Modules that contain a readout: their output repeats the readout's."""
    readouts = set(df[(df.quantity == "update") & (df.role == "output")].module)
    return {
        module
        for module in df.module.unique()
        if any(readout.startswith(f"{module}.") for readout in readouts)
    }


def _is_inside(module: str, axis: str) -> bool:
    """Whether a module is part of an expert or, in a check over depth, part of a block."""
    in_block = axis == "depth" and _IN_A_BLOCK.search(module) is not None
    return in_block or _IN_AN_EXPERT.search(module) is not None


def _within(slope: float, quantity: str, tolerance: float, readout: bool) -> bool | None:
    """Whether a slope is within the tolerance; None for a quantity that is not judged."""
    if quantity == "delta":
        return bool(slope <= tolerance) if readout else bool(abs(slope) <= tolerance)
    return bool(abs(slope) <= tolerance) if readout and quantity == "update" else None


def _slope_at_largest(widths: Array, rms: Array) -> float:
    """``d log rms / d log width`` at the largest width, of rms^2 = limit^2 + random^2 / width."""
    from scipy.optimize import nnls  # half the start-up time of paramz.analysis

    square = rms**2
    # Dividing by the squares makes every point count by its relative error.
    columns = np.stack([1 / square, 1 / (widths * square)], 1)
    (limit, random), _ = nnls(columns, np.ones(len(widths)))
    random /= widths.max()
    return float(-0.5 * random / (limit + random))


def _fit(x: Array, y: Array) -> tuple[float, float, float]:
    """The least-squares slope of y over x with its 95 % interval."""
    from scipy import stats  # slow to import, and needed only here

    fit = stats.linregress(x, y)
    if len(x) < 3:
        return float(fit.slope), float("-inf"), float("inf")
    half = stats.t.ppf(0.975, len(x) - 2) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)
