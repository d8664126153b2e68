"""Bowls that change their shape with scale, and kinked or round valleys, against what is true."""

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.alike import fit_together
from paramz.analysis.curves import Curve, loss_curve
from paramz.analysis.drift import SHARED, shared
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


def spread(values: list[float]) -> float:
    return float(np.std(values))


def test_bowls_of_different_shapes_are_compared_by_curves_that_may_bend() -> None:
    found = curves(kinked=2)
    stiff = np.array([c.optimum.stiff.x for c in found])
    about, drawn = comparable(found)
    assert slope(stiff) > 0.02  # nearly parabolas see a drift that is none
    assert abs(slope(about)) < 0.8 * slope(stiff)
    lo, hi = np.quantile([slope(d) for d in drawn], [0.025, 0.975])
    assert lo < 0 < hi


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_lopsided_bowls_of_one_shape_are_told_apart_as_well_as_parabolas(shift: float) -> None:
    """Each alone is known to a tenth of an octave only, for its own shape is not."""
    rng, grid = np.random.default_rng(1), np.arange(-11.0, -1.0)
    true = -6.3 + shift * np.arange(4)
    xs, losses = [], []
    for best in true:
        u = grid - best
        inside = np.abs(u) < 3
        bowl = 3 + 0.03 * u**2 * np.exp(0.4 * u) * rng.uniform(0.8, 1.25)
        xs.append(grid[inside])
        losses.append((bowl + 0.004 * rng.standard_normal((3, len(grid))))[:, inside])
    found = fit_together(xs, losses, true + 0.1, 300, rng)
    assert found is not None and found.unlike < 0.1
    assert slope(found.places) == pytest.approx(shift, abs=0.02)
    drawn = [slope(d) for d in found.draws]
    assert np.quantile(drawn, 0.025) < shift < np.quantile(drawn, 0.975)
    assert spread(drawn) < 0.03


@pytest.mark.parametrize("cliff", [0, 3])
def test_a_minimum_at_the_foot_of_a_cliff_is_compared_with_where_the_others_are(cliff: int) -> None:
    """It lies on a point of the grid, and stiff curves, by which the others were moved, do not.

    At no drift the mean slope was 0.1 octave per doubling, and half of all intervals missed 0.
    """
    grid, slopes, held = np.arange(-11.0, -1.0), [], 0
    for number in range(12):
        rng = np.random.default_rng(number)
        best, found = rng.uniform(-6.5, -5.5), []
        for k in range(4):
            u = grid - best
            losses = 3 + 0.02 * np.where(u > 0, 3.0, 0.7) * (np.sqrt(0.25 + u**2) - 0.5)
            losses = losses + 0.002 * rng.standard_normal(len(grid))
            if k == cliff:
                losses = np.where(grid > grid[losses.argmin()], np.inf, losses)
            cell = pd.DataFrame({"x": grid, "seed": 0, "loss": losses})
            found.append(loss_curve(64 * 2.0**k, cell, 200, k))
        about, drawn = comparable(found)
        slopes.append(slope(about))
        low, high = np.quantile([slope(d) for d in drawn], [0.025, 0.975])
        held += low <= 0 <= high
    assert abs(np.mean(slopes)) < 0.05
    assert held >= 10


def test_too_few_losses_are_not_fitted_together() -> None:
    x = [np.arange(3.0)] * 2
    losses = [np.array([[1.0, 0.0, 1.1]])] * 2
    assert fit_together(x, losses, np.ones(2), 10, np.random.default_rng(0)) is None


def test_a_curve_beside_what_the_others_have_in_common_is_not_fitted_with_them() -> None:
    """It falls to the end of its grid, and rounds of moving it along lead it out of sight."""
    x = [np.arange(-5.0, 0.0), np.arange(-8.0, 0.0)]
    short = [
        [2.7265, 2.7065, 2.6665, 2.6227, 2.9865],
        [2.7135, 2.6949, 2.6653, 2.6374, 2.6818],
        [2.728, 2.7068, 2.6711, 2.6268, 2.6753],
    ]
    falling = [
        [2.6729, 2.6707, 2.667, 2.6603, 2.649, 2.627, 2.5994, 2.5687],
        [2.6664, 2.6646, 2.6614, 2.6557, 2.6449, 2.6247, 2.5916, 2.653],
        [2.6665, 2.6642, 2.6603, 2.6545, 2.6446, 2.6301, 2.5993, 2.591],
    ]
    losses, starts = [np.array(short), np.array(falling)], np.array([-2.535, -2.0])
    assert fit_together(x, losses, starts, 10, np.random.default_rng(0)) is None


def test_bowls_of_one_shape_are_compared_as_one_curve() -> None:
    found = curves(kinked=0)
    alone = np.stack([c.optimum.draws for c in found], axis=1)
    about, drawn = comparable(found)
    assert np.ptp(about) < 0.003
    assert spread([slope(d) for d in drawn]) < 0.5 * spread([slope(d) for d in alone])


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


def test_the_corner_of_a_steep_valley_is_in_the_interval_on_a_fine_grid() -> None:
    """All curves that explain these losses lie on one side; shrinkage says on which."""
    rng, grid, held = np.random.default_rng(0), np.arange(-10, -2.9, 0.125), 0
    for _ in range(20):
        center = BEST + rng.uniform(-0.5, 0.5)
        u = grid - center
        losses = 2.5 + 0.2 * np.where(u > 0, 2.6, 0.6) * (np.hypot(0.5, u) - 0.5)
        losses = losses + 0.004 * rng.standard_normal((5, len(grid)))
        found = find_optimum(grid, losses, draws=250)
        held += found.lo <= center <= found.hi
    assert held >= 17


def test_errors_of_a_height_that_all_curves_share_do_not_average_out() -> None:
    """Four optima, known to 0.3: from noise their mean is twice as sure, from shape it is not."""
    rng = np.random.default_rng(0)
    free = 0.3 * rng.standard_normal((4000, 4))
    share = np.full(4, 0.25)
    assert shared(free, free, share) == 1.0
    half_of_it = np.sqrt(1 + SHARED * 3)
    assert shared(free, 1e-3 * free, share) == pytest.approx(half_of_it, rel=0.01)
