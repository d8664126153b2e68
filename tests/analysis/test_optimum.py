from collections.abc import Callable

import numpy as np
import pytest

from paramz.analysis.optimum import find_optimum
from paramz.analysis.window import mean_over_seeds

GRID = np.arange(-11.0, -2.0)


def bowl(center: float, grid: np.ndarray = GRID, height: float = 0.02) -> np.ndarray:
    return 2.5 + height * (grid - center) ** 2


@pytest.mark.parametrize("center", [-8.4, -7.0, -5.5, -4.1])
def test_the_vertex_of_a_parabola_is_found_to_rounding(center: float) -> None:
    found = find_optimum(GRID, bowl(center)[None])
    assert found.x == pytest.approx(center, abs=1e-6)
    assert found.curvature == pytest.approx(0.04)
    assert (found.flag, found.interval) == ("", "residuals")


def test_a_cliff_beside_the_optimum_moves_it_less_than_half_a_step() -> None:
    losses = bowl(-6.0)
    losses[GRID > -5.5] = 9.0
    found = find_optimum(GRID, losses[None])
    assert found.flag == "cliff"
    assert abs(found.x - -6.0) <= 0.5
    assert found.hi <= -5.0


def test_a_diverged_neighbour_bounds_the_interval() -> None:
    losses = bowl(-5.8)
    losses[GRID > -5.5] = np.inf
    found = find_optimum(GRID, losses[None])
    assert (found.grid, found.flag) == (-6.0, "cliff")
    assert found.lo <= -5.8 <= found.hi <= -5.0


def test_one_diverged_seed_censors_its_grid_point() -> None:
    losses = np.stack([bowl(-6.0), bowl(-6.0)])
    losses[1, GRID == -6.0] = np.inf
    assert find_optimum(GRID, losses).grid in (-7.0, -5.0)


def test_an_optimum_at_the_end_of_the_grid_has_an_open_interval() -> None:
    assert find_optimum(GRID, bowl(-14.0)[None]).lo == -np.inf
    right = find_optimum(GRID, bowl(3.0)[None])
    assert (right.flag, right.hi, right.x) == ("edge", np.inf, -3.0)


def test_seeds_have_effects_of_their_own_so_that_missing_runs_do_no_harm() -> None:
    """The second seed is worse everywhere and has not run on the right."""
    losses = np.stack([bowl(-6.3), np.where(GRID > -5, np.nan, bowl(-6.3) + 0.3)])
    assert find_optimum(GRID, losses).x == pytest.approx(-6.3, abs=1e-3)
    rise = np.diff(mean_over_seeds(losses))
    np.testing.assert_allclose(rise, np.diff(bowl(-6.3)), atol=1e-6)


def test_a_plateau_is_named() -> None:
    rng = np.random.default_rng(0)
    found = find_optimum(GRID, 2.5 + 0.003 * rng.standard_normal((2, len(GRID))))
    assert found.flag in ("plateau", "edge", "two minima")
    assert found.hi - found.lo > 3
    assert find_optimum(GRID, np.ones((2, len(GRID)))).flag == "plateau"
    walls = np.maximum(np.abs(GRID + 7) - 2, 0) ** 2
    assert find_optimum(GRID, 2 + walls + 0.003 * rng.standard_normal((2, len(GRID)))).flag == (
        "plateau"
    )


@pytest.mark.parametrize("lower", [0.0, 0.002])
def test_two_minima_of_nearly_equal_loss_are_named_and_both_are_in_the_interval(
    lower: float,
) -> None:
    rng = np.random.default_rng(0)
    grid = np.arange(-11, -1.9, 0.5)
    wells = np.minimum((grid + 9) ** 2, (grid + 4) ** 2 - lower)
    found = find_optimum(grid, 2 + 0.1 * wells + 0.002 * rng.standard_normal((3, len(grid))))
    assert found.flag == "two minima"
    assert found.lo < -8.7 and found.hi > -4.3


def test_the_lower_of_two_minima_wins_where_they_differ() -> None:
    grid = np.arange(-11, -1.9, 0.5)
    wells = np.minimum((grid + 9) ** 2 + 3, (grid + 4) ** 2)
    noise = 0.002 * np.random.default_rng(0).standard_normal((3, len(grid)))
    found = find_optimum(grid, 2 + 0.1 * wells + noise)
    assert found.flag == "" and found.lo < -4 < found.hi


def test_all_diverged_is_an_error() -> None:
    with pytest.raises(ValueError, match="every run diverged: the sweep needs smaller values"):
        find_optimum(GRID, np.full((1, len(GRID)), np.inf))


@pytest.mark.filterwarnings("error")
def test_losses_of_zero_have_no_logarithm() -> None:
    found = find_optimum(GRID, np.zeros((2, len(GRID))))
    assert (found.flag, found.loss) == ("plateau", 0.0)
    solved = 20 * np.stack([bowl(-6.0) - 2.5, bowl(-6.0) - 2.4])  # one seed reaches zero
    found = find_optimum(GRID, solved)
    assert found.x == pytest.approx(-6.0, abs=0.01)


def test_three_points_leave_half_a_step_on_either_side() -> None:
    found = find_optimum(np.array([-8.0, -6.0, -4.0]), np.array([[2.2, 2.0, 2.1]]))
    assert found.interval == "grid"
    assert found.hi - found.lo == pytest.approx(0.95 * 2, abs=0.1)


SHAPES = {
    "parabola": lambda u: u**2,
    "steep wall": lambda u: u**2 + 5 * np.maximum(0, u - 1.5) ** 3,
    "rounded V": lambda u: 2.5 * np.sqrt(1 + u**2),
    "lopsided": lambda u: 7.5 * (1 - np.exp(0.35 * u)) ** 2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_cover_the_truth_of_bowls_that_are_no_parabolas(shape: str) -> None:
    """Nine in ten at least; benchmarks/transfer_power.py measures it on many designs."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        center = rng.uniform(-8.5, -4.5)
        losses = 2.5 + 0.02 * SHAPES[shape](GRID - center)
        noisy = losses + 0.004 * rng.standard_normal((3, len(GRID)))
        found = find_optimum(GRID, noisy, draws=200, seed=trial)
        hits += found.lo <= center <= found.hi
    assert hits >= 0.88 * 60


@pytest.mark.parametrize(
    ("low", "high", "bend"),
    [(0.5, 1.5, np.square), (1.2, 1.2, np.abs), (0.7, 2.5, lambda u: np.hypot(0.4, u) - 0.4)],
    ids=["curvature jumps", "V", "bent line"],
)
def test_intervals_cover_the_truth_of_kinked_valleys(
    low: float, high: float, bend: Callable[[np.ndarray], np.ndarray]
) -> None:
    grid, rng, hits = np.arange(-11, -1.99, 0.25), np.random.default_rng(4), 0
    for trial in range(24):
        center = rng.uniform(-8.5, -4.5)
        u = grid - center
        losses = 2.5 + 0.05 * np.where(u > 0, high, low) * bend(u)
        noisy = losses + 0.004 * rng.standard_normal((3, len(grid)))
        found = find_optimum(grid, noisy, draws=200, seed=trial)
        hits += found.lo <= center <= found.hi
    # With smooth curves alone these were a quarter to two thirds.
    assert hits >= 20


def test_finer_grids_find_the_optimum_better() -> None:
    errors = []
    for step in (1.0, 0.5, 0.125):
        grid, rng = np.arange(-11, -1.99, step), np.random.default_rng(1)
        off = []
        for trial in range(40):
            center = rng.uniform(-8.5, -4.5)
            noisy = bowl(center, grid) + 0.004 * rng.standard_normal((2, len(grid)))
            off.append(find_optimum(grid, noisy, draws=50, seed=trial).x - center)
        errors.append(np.sqrt(np.mean(np.square(off))))
    assert errors[1] < 1.1 * errors[0] and errors[2] < 0.7 * errors[0]


def test_seeds_whose_optima_lie_apart_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    noise = 0.001 * rng.standard_normal((4, len(GRID)))
    together = find_optimum(GRID, np.stack([bowl(-6.0)] * 4) + noise)
    apart = find_optimum(GRID, np.stack([bowl(-6 + s) for s in (-1, -0.3, 0.3, 1)]) + noise)
    assert apart.hi - apart.lo > 5 * (together.hi - together.lo) > 0


@pytest.mark.parametrize("size", [1e150, 1e200, 1e300, 1e-150, 1e-300, -1e200])
def test_losses_without_squares_are_refused_with_the_way_out(size: float) -> None:
    losses = np.stack([bowl(-6.4), bowl(-6.2) + 0.01]) * size
    with pytest.raises(ValueError, match="do not fit into floating-point numbers. Divide all"):
        find_optimum(GRID, losses)
    # One run that came out that large is a cliff like any other.
    losses = np.stack([bowl(-6.4), bowl(-6.2) + 0.01])
    losses[:, -1] = abs(size) if abs(size) > 1 else 1e200
    assert find_optimum(GRID, losses).x == pytest.approx(-6.3, abs=0.01)
