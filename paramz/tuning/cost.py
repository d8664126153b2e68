"""What a trial takes, from a short pilot: seconds per step by width, and seconds beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Beyond the widths that were timed, the time of a step is taken to grow as the number of weights.
_GROWTH = 2.0
# Steps of the pilot's trials. The first ones are thrown away: they load data and compile.
WARM_UP, SHORT, LONG = 1, 4, 16


@dataclass(frozen=True)
class Cost:
    """What a trial takes.

    Attributes:
        widths: that were timed, in order.
        seconds: of one step at each of them; of a whole trial where steps cannot be set.
        start: seconds of a trial beside its steps.

    >>> cost = Cost((32, 64), (0.1, 0.2), start=1.0)
    >>> cost.trial(64, 10), cost.trial(128, 10)
    (3.0, 9.0)
    """

    widths: tuple[float, ...]
    seconds: tuple[float, ...]
    start: float

    def trial(self, width: float, steps: int | None) -> float:
        """Seconds of a trial.

        Args:
            width: of its model.
            steps: its number of steps; None where they cannot be set.
        """
        return self.start + self._at(width) * (1 if steps is None else steps)

    def corrected(self, width: float, steps: int | None, seconds: float) -> Cost:
        """The same where a trial was seen to take other seconds.

        What it takes less is laid to its start first, which is what a pilot of few steps sees the
        least of: wider models gain less by that. What it takes more is laid to all in proportion.

        >>> Cost((32,), (0.1,), start=2.0).corrected(32, 10, 2.0)
        Cost(widths=(32,), seconds=(0.1,), start=1.0)
        """
        expected = self.trial(width, steps)
        start = min(self.start, max(0.0, self.start - (expected - seconds)))
        if seconds > expected:
            start *= seconds / expected
        each = (seconds - start) / (expected - self.start)
        return replace(self, seconds=tuple(each * one for one in self.seconds), start=start)

    def _at(self, width: float) -> float:
        """Seconds of a step, between the timed widths on a line in logarithms."""
        points = list(zip(self.widths, self.seconds, strict=True))
        if width <= points[0][0]:
            return points[0][1]
        for (a, low), (b, high) in zip(points, points[1:], strict=False):
            if width <= b:
                share = math.log(width / a) / math.log(b / a)
                return math.exp((1 - share) * math.log(low) + share * math.log(high))
        (last, seconds) = points[-1]
        return float(seconds * (width / last) ** _GROWTH)


def measured(runs: pd.DataFrame) -> Cost:
    """What trials take, by those of a pilot.

    Args:
        runs: ``width, seconds`` and, where it was set, ``steps``.

    Raises:
        ValueError: no trial ended well.
    """
    if runs.empty:
        raise ValueError("no trial of the pilot ended well")
    least = 1e-4  # clocks are no finer
    if "steps" not in runs or runs["steps"].nunique() < 2:
        steps = runs["steps"] if "steps" in runs else 1
        means = (runs["seconds"] / steps).groupby(runs["width"]).mean().clip(lower=least)
        return Cost(tuple(map(float, means.index)), tuple(map(float, means)), 0.0)
    widths, seconds, starts = [], [], []
    for width, part in runs[runs["steps"] > WARM_UP].groupby("width"):
        times = part.groupby("steps")["seconds"].min()
        (few, many), (short, long) = (
            (times.index[0], times.index[-1]),
            (times.iloc[0], times.iloc[-1]),
        )
        # Where noise hides that more steps take longer, all of it is laid to the steps.
        each = (long - short) / (many - few) if long > 1.05 * short else long / many
        widths.append(float(width))  # type: ignore[arg-type]
        seconds.append(max(float(each), least))
        starts.append(max(0.0, float(long - each * many)))
    # A wider model is not faster.
    for i in range(1, len(seconds)):
        seconds[i] = max(seconds[i], seconds[i - 1])
    return Cost(tuple(widths), tuple(seconds), max(starts))
