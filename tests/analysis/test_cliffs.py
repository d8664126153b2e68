"""Runs that became unstable and still ended with a number, as where a loss is that of guessing."""

import numpy as np
import pandas as pd
import pytest

from paramz.analysis.curves import Curve, loss_curve, regret_of
from paramz.analysis.optimum import find_optimum


def losses(best: int, gap: int, seeds: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Nine points, the lowest at one of the first, and unstable runs from a few points on."""
    rng = np.random.default_rng(best + 10 * gap + 100 * seeds)
    x = step * np.arange(9)
    low = 2.5 + 0.03 * (x - x[best] - 0.2 * step) ** 2 + 0.004 * rng.standard_normal((seeds, 9))
    return x, np.where(np.arange(9) < best + gap, low, 5 + 3 * rng.random((seeds, 9)))


@pytest.mark.parametrize("step", [0.5, 1.0])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("best", "gap"), [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2)])
def test_unstable_runs_are_no_noise(best: int, gap: int, seeds: int, step: float) -> None:
    x, y = losses(best, gap, seeds, step)
    found = find_optimum(x, y, draws=300)
    true = x[best] + 0.2 * step
    assert found.lo <= true <= found.hi
    assert abs(found.x - true) < 0.8 * step
    assert found.level == pytest.approx(2.5, abs=0.03)


def test_losses_that_blow_up_are_not_taken_for_noise_either() -> None:
    y = np.array([2.07, 2.02, 2.07, 2.22, 1e4, 1e5, 1e6, 1e7, 1e8])
    found = find_optimum(np.arange(9.0), y[None], draws=300)
    assert (found.x, found.flag) == (pytest.approx(1.0, abs=0.1), "")
    assert found.level == pytest.approx(2.02, abs=0.01)


def test_the_lowest_at_the_end_of_the_grid_leaves_open_the_half_step_inside() -> None:
    x, y = losses(0, 2, 1, 1.0)
    found = find_optimum(x, np.where(y > 4, np.inf, y), draws=300)
    assert found.flag == "edge"
    assert found.lo == -np.inf and 0.2 <= found.hi <= 0.5


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("flip", [1, -1])
def test_unstable_runs_beside_the_end_of_the_grid_are_no_bowl(seeds: int, flip: int) -> None:
    """The optimum lies between the first point and the next, which is unstable and finite."""
    x, y = losses(0, 1, seeds, 1.0)
    x, y = (x, y) if flip > 0 else (-x[::-1], y[:, ::-1])
    found = find_optimum(x, y, draws=300)
    assert found.flag == "edge"
    assert found.level == pytest.approx(2.5, abs=0.01)  # a bowl through all lay higher
    ends = (found.lo, found.hi) if flip > 0 else (-found.hi, -found.lo)
    assert ends[0] == -np.inf and 0.8 < ends[1] <= 1.0  # and its interval left the step out


def test_a_bowl_from_the_end_of_the_grid_on_is_none_of_that() -> None:
    x = np.arange(9.0)
    noise = 0.004 * np.random.default_rng(0).standard_normal((3, 9))
    found = find_optimum(x, 2.5 + 0.03 * (x + 0.5) ** 2 + noise, draws=300)
    assert (found.flag, found.x, found.lo) == ("edge", 0.0, -np.inf) and found.hi < 0.5


def test_towards_a_run_that_diverged_a_whole_step_is_open() -> None:
    x = np.arange(3.0)
    found = find_optimum(x, np.array([[2.5, np.inf, np.inf]]), draws=300)
    assert found.lo == -np.inf and 0.9 < found.hi <= 1.0


def curve(scale: float, best: float, cliff: float, height: float) -> Curve:
    x = np.arange(-9.0, 0.0)
    rows = [
        (at, seed, height if at > cliff else 2.5 + 0.03 * (at - best) ** 2 + 0.001 * seed)
        for at in x
        for seed in range(3)
    ]
    return loss_curve(scale, pd.DataFrame(rows, columns=["x", "seed", "loss"]), 300, 0)


def test_a_value_that_is_unstable_at_another_scale_costs_what_it_cost_there() -> None:
    narrow, wide = curve(64, -3.9, -3, 5.0), curve(1024, -5.0, -5, 5.0)
    lost = regret_of(narrow, wide)
    assert lost.regret > 2 and lost.lo > 1
    assert wide.level == pytest.approx(2.5, abs=0.01)
    # A loss of 1e4 is as high as that, and moves nothing else.
    assert curve(1024, -5.0, -5, 1e4).optimum.hi == pytest.approx(wide.optimum.hi, abs=0.05)


def test_the_wall_of_a_bowl_below_its_minimum_is_no_cliff() -> None:
    """Four points that fall and then stay: the two lowest were an optimum beside a cliff."""
    losses = np.array([[3.054, 2.790, 2.493, 2.502]])
    found = find_optimum(np.array([-8.0, -7.0, -6.0, -5.0]), losses)
    assert found.flag != "cliff"
    assert found.x > -5.9
