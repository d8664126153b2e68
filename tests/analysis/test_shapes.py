"""Bowls that change their shape with scale, and kinked or round valleys, against what is true."""

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.curves import Curve, loss_curve
from paramz.analysis.optimum import find_optimum
from paramz.analysis.shapes import comparable

GRID = np.arange(-11, -1.9, 0.25)
BEST = -6.2


def curves(kinked: int) -> list[Curve]:
    """Four widths with one optimum; the first ones rise three times as steeply above it."""
    rng = np.random.default_rng(0)
    u = GRID - BEST
    found = []
    for k in range(4):
        bowl = 0.1 * u**2 * (np.where(u > 0, 1.5, 0.5) if k < kinked else 1.0)
        rows = [
            (x, seed, 3 + y + 0.003 * rng.standard_normal())
            for seed in range(3)
            for x, y in zip(GRID, bowl, strict=True)
        ]
        cell = pd.DataFrame(rows, columns=["x", "seed", "loss"])
        found.append(loss_curve(64 * 2.0**k, cell, 300, k))
    return found


def slope(positions: np.ndarray) -> float:
    return float(np.polyfit(range(len(positions)), positions, 1)[0])


def test_bowls_of_different_shapes_are_compared_by_curves_that_may_bend() -> None:
    found = curves(kinked=2)
    stiff = np.array([c.optimum.stiff.x for c in found])
    about, drawn = comparable(found)
    assert slope(stiff) > 0.02  # nearly parabolas see a drift that is none
    assert abs(slope(about)) < 0.8 * slope(stiff)
    lo, hi = np.quantile([slope(d) for d in drawn], [0.025, 0.975])
    assert lo < 0 < hi


def test_bowls_of_one_shape_are_compared_by_stiff_curves() -> None:
    found = curves(kinked=0)
    stiff = np.array([c.optimum.stiff.x for c in found])
    about, _ = comparable(found)
    assert np.abs(about - stiff).max() < 0.003


def test_noise_beside_the_minimum_is_no_cliff() -> None:
    rng = np.random.default_rng(0)
    grid = GRID[::2]
    for _ in range(40):
        losses = 2.5 + 0.03 * (grid - BEST - rng.uniform(-0.5, 0.5)) ** 2
        losses = losses + 0.004 * rng.standard_normal((5, len(grid)))
        assert find_optimum(grid, losses, draws=50).flag != "cliff"


@pytest.mark.parametrize("radius", [0.3, 0.8])
def test_the_corner_of_a_round_valley_is_in_the_interval(radius: float) -> None:
    """Sides that rise as 2 and 0.8; an interval of a smooth curve misses it on fine grids."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(12):
        u = GRID - BEST - rng.uniform(-0.5, 0.5)
        losses = 2.5 + 0.15 * np.where(u > 0, 2.0, 0.8) * (np.hypot(radius, u) - radius)
        losses = losses + 0.004 * rng.standard_normal((3, len(GRID)))
        found = find_optimum(GRID, losses, draws=250)
        held += found.lo <= BEST + (GRID - BEST - u)[0] <= found.hi
    assert held >= 10
