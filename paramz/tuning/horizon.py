"""How lr moves with the number of steps: what the rule says, and what shorter runs show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paramz.analysis.transfer import transfer
from paramz.theory.horizon import transfer_run

if TYPE_CHECKING:
    import pandas as pd

# Half an interval wider than this, in octaves per doubling, tells no rule from its neighbour: that
# of tokens says -0.32, no change 0, and the square root -0.5.
_TELLS = 0.25


@dataclass(frozen=True)
class Horizon:
    """What shorter runs of the smallest proxy say of the rule.

    Attributes:
        agrees: whether the measured slope's interval holds that of the rule; None where it was not
            measured, or is so wide that it holds those of other rules, too.
        text: both slopes in words.
    """

    agrees: bool | None
    text: str


def by_rule(
    rule: str, optimizer: str, lr: float, *, batch: float = 1.0, steps: float = 1.0
) -> float:
    """A learning rate at another batch size or number of steps, with four digits.

    Raises:
        ValueError: the rule has no column for the optimizer.

    >>> by_rule("token-horizon", "adamw", 0.01, steps=4)
    0.006417
    """
    return float(f"{transfer_run(rule, optimizer, lr=lr, batch=batch, steps=steps)['lr']:.4g}")


def horizon_of(
    rule: str, optimizer: str, runs: pd.DataFrame, shorter: pd.DataFrame, steps: str
) -> Horizon:
    """The slope of the best lr over the number of steps, beside that of the rule.

    Args:
        rule: the run rule.
        optimizer: its name.
        runs: the sweep over the proxies, all of as many steps.
        shorter: shorter runs of the smallest one.
        steps: the column of the number of steps.
    """
    import pandas as pd

    same = runs[runs["width"] == shorter["width"].iloc[0]]
    both = pd.concat([same, shorter], ignore_index=True)
    expected = math.log2(transfer_run(rule, optimizer, lr=1.0, steps=2.0)["lr"])
    said = f"the rule {rule} says {expected:+.2f} octave per doubling of the steps"
    try:
        drift = transfer(both, hp="lr", scale=steps).drift.iloc[0]
    except ValueError as error:
        return Horizon(None, f"{said}; shorter runs do not show it: {error}")
    slope, lo, hi = (float(drift[name]) for name in ("slope", "lo", "hi"))
    if not math.isfinite(slope):
        return Horizon(None, f"{said}; shorter runs do not show it: optima lie at ends of the grid")
    agrees: bool | None = lo <= expected <= hi
    if agrees and (hi - lo) / 2 > _TELLS:
        agrees = None
    verb = {True: "agrees", False: "disagrees", None: "is too wide an interval to test the rule"}
    return Horizon(
        agrees,
        f"{said}; shorter runs of the smallest proxy show {slope:+.2f} (95% {lo:+.2f} to "
        f"{hi:+.2f}), which {verb[agrees]}",
    )
