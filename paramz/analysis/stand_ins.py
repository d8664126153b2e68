"""Numbers that stand for a loss where there is none: runs that failed and were logged as 0 or -1.

As the lowest of the table they would be the best runs. What tells them: the number is whole and not
above zero, and at each scale where it is logged it lies farther below all other losses than the
better half of these lie apart. True losses come near their lowest: a training loss of zero has
small ones beside it. Among losses below zero, or rounded ones, a whole number is nothing special,
so that there it must lie much farther off.
"""

from __future__ import annotations

import numpy as np

from paramz.analysis.columns import Array

# So many other losses at a scale say how far apart losses lie; of fewer, all of the table do.
_ENOUGH = 3
# How many times farther off than the better half is wide: where whole numbers are rare, and not.
_FAR, _FARTHER = 1.0, 30.0


def refuse_stand_ins(loss: Array, cells: Array, name: str) -> None:
    """Raise where the lowest losses look like numbers that were logged for runs that failed.

    Args:
        loss: of each run, shape (rows,); those that are not finite are none.
        cells: a number for each row, the same for runs whose losses compare, as of one scale.
        name: what to call the loss.

    Raises:
        ValueError: they do; the message says how to mark such runs.

    >>> cells = np.zeros(5)
    >>> refuse_stand_ins(np.array([2.21, 2.13, 0.0, 2.34, 3.07]), cells, "loss")
    Traceback (most recent call last):
    ValueError: 1 of 5 runs has loss 0 and no other is below 2.13: runs that failed are often ...
    >>> refuse_stand_ins(np.array([0.71, 0.02, 0.0, 0.0, 0.35]), cells, "training loss")
    """
    there = np.isfinite(loss)
    if not there.any():
        return
    low = loss[there].min()
    if low > 0 or low != np.round(low):
        return
    others = there & (loss > low)
    rests = [loss[others & (cells == cell)] for cell in np.unique(cells[there & (loss == low)])]
    rests = [rest for rest in rests if len(rest) >= _ENOUGH] or [loss[others]]
    if not all(_stands_apart(low, rest) for rest in rests):
        return
    count = int((loss == low).sum())
    raise ValueError(
        f"{count} of {int(there.sum())} runs {'has' if count == 1 else 'have'} {name} {low:g} and "
        f"no other is below {loss[others].min():g}: runs that failed are often "
        "logged so, and would count as the best. Leave their cells empty (they count as diverged), "
        f"or give a column 'status' that calls them 'failed'. If {low:g} was measured, add a "
        "constant to the column, which moves no minimum; of a score where higher is better, give a "
        "loss"
    )


def _stands_apart(low: float, rest: Array) -> bool:
    """Whether a whole number lies too far below losses, shape (runs,), to be one."""
    if len(rest) < _ENOUGH:
        return False
    nearest = float(rest.min())
    tenths = 10 * rest
    rounded = np.mean(np.abs(tenths - np.round(tenths)) < 1e-9) > 0.5
    far = _FARTHER if rounded or nearest <= 0 else _FAR
    return nearest - low > far * max(float(np.median(rest)) - nearest, 1e-12)
