"""Slopes of a coordinate check: how the size of each quantity moves with scale, log against log.

What theory claims is an exponent, and exponents are multiples of 1/2. So a slope is judged by an
interval: it passes where the interval reaches into the tolerance and excludes the next exponents
(+-1/2), it fails where the interval lies wholly nearer to one of those (beyond +-1/4), and else it
is undecided. A slope below zero also passes where its interval lies above -1/4.

Theory speaks of the limit of large widths. What is judged is therefore the slope at the largest
ones, after the part that any finite width adds: a sum of random terms, whose square is
``limit^2 + random^2 / width``.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.in_blocks import in_blocks
from paramz.analysis.lagging import lag_of, lagging_of

if TYPE_CHECKING:
    import pandas as pd

# What a check may vary; the table has one of these columns.
AXES = ("width", "depth", "experts", "rank", "density")

# Sizes of sums, with a random part that any finite size adds: a rank is an adapter's width, and a
# sparse layer's is its density times the width.
_SUMMED = ("width", "rank", "density")

NEXT = 0.5
"""The distance between neighbouring exponents of the theory."""

# Quantities that theory makes a claim on. The others are evidence for the cause.
CLAIMS = ("output", "delta", "update", "reach")

_LATENT = "latent"  # the role of maps into a bottleneck that a norm follows
_LOGITS = "logits"  # the role of what a softmax module takes
_COMPLETE = "completep"  # the scheme under which no layer's update may shrink with depth
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
    """How one quantity of one module moves with the scale: log against log.

    Attributes:
        module: its path.
        role: the role of its weight, empty for containers; "logits" for what a softmax takes.
        step: updates made so far.
        quantity: what was measured, see `paramz.coord_check`.
        slope: at the largest scales, see `local_slope`.
        lo: lower end of its 95 % interval (Student's t over the residuals).
        hi: upper end.
        passed: whether it is the exponent that theory gives; None where nothing is claimed.
        proved: a failure whose whole interval is nearer to another exponent.
        last: no tensor that grows is applied after the module, so that its random part may shrink
            like width^-1/2.
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
    last: bool = False


def judged_slopes(df: pd.DataFrame, axis: str, tolerance: float) -> list[Slope]:
    """The slopes of a coordinate check in forward order, each judged where it can be.

    Args:
        df: the table of one parametrization, optimizer and learning rate.
        axis: its column of the scale.
        tolerance: the largest absolute slope of a limit that is taken to be flat.

    Returns:
        the slopes; quantities that vanish at one of the scales have none, nor do claimed ones that
        vanish in some of the runs: what the module puts out is then a choice, which changes or not.
    """
    scales = df[axis].nunique()
    shown = df[df.quantity == "output"] if (df.quantity == "output").any() else df
    order = {module: i for i, module in enumerate(shown.module.unique())}
    last = last_maps(df)
    scheme = str(df.parametrization.iloc[0])
    lagging = lagging_of(df) if axis == "width" else frozenset()
    lag = lag_of(df)
    # Blocks at one relative depth are compared, of which only the state after them is comparable.
    inside = in_blocks(set(df.module)) if axis == "depth" else frozenset()
    slopes = []
    for key, cell in df.groupby(["module", "role", "step", "quantity"], sort=False):
        module, role, step, quantity = (str(part) for part in key)
        positive = cell[cell.rms > 0]
        if positive[axis].nunique() < scales:
            continue
        if quantity in CLAIMS and len(positive) < len(cell):
            continue
        sizes, rms = positive[axis].to_numpy(dtype=float), positive.rms.to_numpy(dtype=float)
        # The aligned part is what the fit of a limit looks for: nothing random is left in it.
        limited = axis in _SUMMED and quantity != "aligned"
        found = local_slope(sizes, rms) if limited else fit_slope(sizes, rms)
        slope = Slope(module, role, int(step), quantity, *found, None, last=module in last)
        if _is_claimed(slope, axis, inside):
            lags = module in lagging and quantity in ("update", "delta")
            slope = _judged(slope, lags or may_fall(slope, axis, scheme), tolerance)
            if lags and slope.hi < -lag - NEXT / 2:
                slope = replace(slope, passed=False, proved=True)  # more than a lag explains
            # Of one layer in a deep branch it is too noisy under SGD to leave a check undecided.
            if axis != "width" and slope.quantity == "update" and not slope.proved:
                slope = replace(slope, passed=True)
        slopes.append(slope)
    if axis != "rank":  # What adds up over a rank are not the rows of a batch.
        slopes = [_excused(slope, slopes, tolerance) for slope in slopes]
    return sorted(slopes, key=lambda s: (s.step, order.get(s.module, -1), s.quantity))


def local_slope(sizes: Array, rms: Array) -> tuple[float, float, float]:
    """``d log rms / d log size`` at the largest sizes, with its 95 % interval.

    It is the least-squares slope over all sizes or, where the line bends (that slope lies outside
    the other's interval), over the upper half, three of four. Where rms falls, its squares are also
    fitted by ``limit^2 + random^2 / size``, and the slope of that curve at the largest size is
    taken where it is the flatter one: -1/2 * random^2 / (size * rms^2).

    Args:
        sizes: widths, one per measurement.
        rms: what was measured, above zero.

    Returns:
        the slope, and the ends of the interval (infinite for fewer than three measurements).

    >>> import numpy as np
    >>> widths = np.repeat([64.0, 128.0, 256.0, 512.0], 2)
    >>> [round(float(x), 2) for x in local_slope(widths, np.sqrt(1 + 64 / widths))]
    [-0.06, -0.06, -0.06]
    """
    distinct = np.unique(sizes)
    upper = sizes >= distinct[-max(2, len(distinct) // 2 + 1) :].min()
    slope, lo, hi = fit_slope(sizes, rms)
    bent = fit_slope(sizes[upper], rms[upper])
    if not lo <= bent[0] <= hi:
        slope, lo, hi = bent
    if slope < 0 and len(distinct) > 2:
        limited = _towards_a_limit(sizes, rms)
        if limited is not None and limited[0] > slope:
            return limited
    return slope, lo, hi


def fit_slope(sizes: Array, rms: Array) -> tuple[float, float, float]:
    """The least-squares slope of log rms over log size with its 95 % interval."""
    from scipy.special import stdtrit  # slow to import, and needed only here

    x, y = np.log(sizes), np.log(rms)
    x = x - x.mean()
    spread = float(x @ x)
    slope = float(x @ y / spread)
    freedom = len(x) - 2
    if freedom < 1:
        return slope, float("-inf"), float("inf")
    residual = y - y.mean() - slope * x
    half = float(stdtrit(freedom, 0.975) * np.sqrt(residual @ residual / freedom / spread))
    return slope, slope - half, slope + half


def _towards_a_limit(sizes: Array, rms: Array) -> tuple[float, float, float] | None:
    """The slope at the largest size of rms^2 = limit^2 + random^2 / size; None without a limit."""
    from scipy.special import stdtrit

    square = rms**2
    # Dividing by the squares makes every point count by its relative error.
    columns = np.stack([1 / square, sizes.max() / (sizes * square)], 1)
    (limit, random), *_ = np.linalg.lstsq(columns, np.ones(len(rms)), rcond=None)
    freedom = len(rms) - 2
    if limit <= 0 or random <= 0 or freedom < 1:
        return None
    residual = 1 - columns @ (limit, random)
    covariance = np.linalg.inv(columns.T @ columns) * (residual @ residual) / freedom
    gradient = np.array([random, -limit]) * 0.5 / (limit + random) ** 2
    half = float(stdtrit(freedom, 0.975) * np.sqrt(gradient @ covariance @ gradient))
    slope = float(-0.5 * random / (limit + random))
    return slope, slope - half, slope + half


def last_maps(df: pd.DataFrame) -> set[str]:
    """Modules after which no tensor that grows is applied, and routers, which may start so."""
    readouts = set(df[df.role == "output"].module)
    if "last" in df.columns:
        last = set(df[df["last"].astype(bool)].module)
    else:  # A table of before: readouts, and what holds them.
        updates = set(df[(df.quantity == "update") & (df.role == "output")].module)
        holders = {m for m in df.module.unique() if any(r.startswith(f"{m}.") for r in updates)}
        last = readouts | holders
    return last | set(df[df.role == "router"].module)


def _is_claimed(slope: Slope, axis: str, inside: Set[str]) -> bool:
    """Whether theory gives an exponent for this quantity of this module."""
    if slope.quantity == "update" and axis != "width":
        return True
    if slope.quantity not in CLAIMS or _IN_AN_EXPERT.search(slope.module) is not None:
        return False  # an expert sees other tokens at every step
    if slope.role == _LATENT and slope.quantity in ("output", "delta"):
        return False  # a norm takes its size off; what comes out of that is judged
    if axis == "width":
        return slope.quantity != "output" or slope.step == 0
    return slope.quantity == "delta" and slope.module not in inside


def may_fall(slope: Slope, axis: str, scheme: str) -> bool:
    """Whether theory lets a quantity shrink."""
    if axis == "width":
        # The reach of attention is an upper bound, and random parts of what comes last shrink. So
        # do logits before training: with 1/d_head they are a mean of products that do not add up.
        faint = slope.role == _LOGITS and slope.quantity == "output"
        return faint or slope.quantity == "reach" or (slope.last and slope.quantity != "update")
    # CompleteP is to keep all layers learning; those of Depth-muP get lazy.
    return slope.quantity == "update" and not (axis == "depth" and _COMPLETE in scheme)


def _judged(slope: Slope, may_fall: bool, tolerance: float) -> Slope:
    """A slope with its judgement."""
    lo, hi = slope.lo, slope.hi
    falls = not may_fall
    beyond = lo > NEXT / 2 or (falls and hi < -NEXT / 2)
    flat = (lo <= tolerance or not np.isfinite(lo)) and (
        not falls or hardly_falls(lo, hi, tolerance)
    )
    known = hi < NEXT and (not falls or lo > -NEXT)
    if not np.isfinite(hi):  # two scales and one seed have no interval
        flat, known = slope.slope <= tolerance and (not falls or slope.slope >= -tolerance), True
    near = slope.slope <= NEXT / 2 and (not falls or slope.slope >= -NEXT / 2)
    return replace(slope, passed=bool(flat and known and near), proved=bool(beyond))


def hardly_falls(lo: float, hi: float, tolerance: float) -> bool:
    """Whether a fall is compatible with none, or surely nearer to none than to the next exponent.

    The second is for what shrinks towards its limit more slowly than the fit of one can tell.
    Nothing of a right plan grows in that way, so growth is not excused.
    """
    return hi >= -tolerance or lo > -NEXT / 2


def _excused(slope: Slope, slopes: list[Slope], tolerance: float) -> Slope:
    """A fall that random sums explain is none of the parametrization.

    With more rows in the batch than the model is wide, a module's update is mostly a sum over rows
    that do not add up, which shrinks towards the part that does. That part (``aligned``) is
    measured for every linear map; where it keeps its size, so will the update at larger widths,
    and so will the changes that it makes after it.
    """
    if slope.passed is not False or slope.slope > 0:
        return slope
    if NEXT <= slope.hi < np.inf:
        return slope  # it may as well grow
    if slope.quantity == "update":
        aligned = [s for s in slopes if s.module == slope.module and s.quantity == "aligned"]
        if any(s.step == slope.step and hardly_falls(s.lo, s.hi, tolerance) for s in aligned):
            return replace(slope, passed=True, proved=False)
    if slope.quantity == "delta" and random_sums(slopes, tolerance):
        return replace(slope, passed=True, proved=False)
    return slope


def random_sums(slopes: list[Slope], tolerance: float) -> list[str]:
    """Modules whose update shrinks with width although its aligned part does not."""
    kept = {
        s.module for s in slopes if s.quantity == "aligned" and hardly_falls(s.lo, s.hi, tolerance)
    }
    return [
        s.module
        for s in slopes
        if s.quantity == "update" and s.hi < -tolerance and s.module in kept
    ]
