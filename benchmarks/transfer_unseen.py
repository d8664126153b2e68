"""False verdicts and coverage of drifts on bowls that nothing was set on.

The shapes, heights and noise were chosen once, after the estimator was final, and run once.

    python benchmarks/transfer_unseen.py [sweeps per row, default 60]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from paramz.analysis import transfer

DRIFTS = (0.0, -0.1, 0.1, -0.2)
WIDTHS, SEEDS, GRID = 5, 3, range(-9, -2)
Bowl = Callable[[float, float], float]
BOWLS: dict[str, Bowl] = {
    "Morse": lambda u, h: h * (1 - np.exp(0.45 * u)) ** 2,
    "parabola with a cubic rise": lambda u, h: h * (0.5 * u**2 + 0.1 * max(u, 0.0) ** 3),
    "log cosh": lambda u, h: h * np.log(np.cosh(1.3 * u)),
    "flat below, steep above": lambda u, h: h * (0.25 if u < 0 else 0.9) * u**2,
}


def sweep(bowl: Bowl, drift: float, vary: float, rng: np.random.Generator) -> pd.DataFrame:
    """A sweep whose optimum moves by ``drift`` octaves per doubling.

    Args:
        bowl: of distance in octaves and height.
        drift: of the optimum.
        vary: standard deviation of the logarithm of heights between widths.
        rng: of all that is drawn.
    """
    start, rows = rng.uniform(-6.5, -5.5), []
    for i in range(WIDTHS):
        height, center = 0.03 * np.exp(vary * rng.normal()), start + drift * i
        for seed in range(SEEDS):
            level = 2 + 0.5 * 0.8**i + 0.01 * rng.normal()
            for x in GRID:
                loss = level + bowl(x - center, height) + 0.005 * rng.normal()
                rows.append((2 ** (5 + i), 2.0**x, seed, loss))
    return pd.DataFrame(rows, columns=["width", "lr", "seed", "loss"])


def rates(bowl: Bowl, vary: float, sweeps: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares of sweeps: coverage, false verdicts, and passes where nothing moves."""
    held, passes, fails, still = [], [], [], []
    for _ in range(sweeps):
        drift = float(rng.choice(DRIFTS))
        found = transfer(sweep(bowl, drift, vary, rng), scale="width")
        row, outcome = found.drift.iloc[0], next(iter(found.verdicts.values())).outcome
        held.append(row.lo <= drift <= row.hi)
        passes.append(abs(drift) >= 0.1 and outcome == "pass")
        fails.append(abs(drift) <= 0.1 and outcome == "fail")
        if drift == 0:
            still.append(outcome == "pass")
    said = {"held": held, "false pass": passes, "false fail": fails, "passes at 0": still}
    return {what: float(np.mean(values)) for what, values in said.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    draw = np.random.default_rng(7)
    for name, shape in BOWLS.items():
        for spread in (0.0, 0.3):
            found_rates = rates(shape, spread, number, draw)
            cells = ", ".join(f"{what} {share:.1%}" for what, share in found_rates.items())
            print(f"{name}, heights by {spread:.0%}: {cells}", flush=True)
