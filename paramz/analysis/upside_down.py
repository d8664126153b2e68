"""Whether what was given as a loss looks like a score, of which more is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paramz.analysis.curves import Curve

_ARC = 4  # points of a curve whose arc tells a score from a loss


def upside_down(curves: Sequence[Curve], loss: str, hp: str) -> list[str]:
    """A note where most curves have a maximum where those of a loss have a minimum; else none.

    Such a curve has its highest point inside the grid and its lowest at an end, and both ends lie
    lower than the highest point by a third of the range or more. That of a loss is high at one end
    at least: where it jumps up early, it stays up.

    >>> import pandas as pd
    >>> from paramz.analysis.curves import loss_curve
    >>> x = np.arange(-6.0, 0.0)
    >>> runs = pd.DataFrame({"x": x, "loss": 0.9 - 0.1 * (x + 3) ** 2, "seed": 0})
    >>> made = [loss_curve(width, runs, draws=10, seed=0) for width in (64, 128)]
    >>> print(*upside_down(made, "accuracy", "lr"))
    accuracy has a maximum inside the grid of lr in 2 of 2 curves, and what is looked for is a
    minimum: if it is a score where higher is better, give a loss, such as 1 - accuracy
    """
    turned = [curve for curve in curves if _is_turned(curve)]
    if len(turned) < 2 or 2 * len(turned) <= len(curves):
        return []
    return [
        f"{loss} has a maximum inside the grid of {hp} in {len(turned)} of {len(curves)} curves, "
        "and what is looked for is a minimum: if it is a score where higher is better, give a "
        f"loss, such as 1 - {loss}"
    ]


def _is_turned(curve: Curve) -> bool:
    alive = curve.mean[np.isfinite(curve.mean)]
    if len(alive) < _ARC or alive.argmin() not in (0, len(alive) - 1):
        return False
    top, lowest = float(alive.max()), float(alive.min())
    return bool(max(alive[0], alive[-1]) < top - (top - lowest) / 3)
