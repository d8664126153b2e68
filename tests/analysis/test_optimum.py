import numpy as np
import pytest

from paramz.analysis.optimum import find_optimum, vertices

GRID = np.arange(-11.0, -2.0)


def bowl(center: float) -> np.ndarray:
    return 2.5 + 0.02 * (GRID - center) ** 2


@pytest.mark.parametrize("center", [-8.4, -7.0, -5.5, -4.1])
def test_the_vertex_of_a_parabola_is_found_to_rounding(center: float) -> None:
    found = find_optimum(GRID, bowl(center)[None])
    assert found.x == pytest.approx(center, abs=1e-9)
    assert found.curvature == pytest.approx(0.04)
    assert (found.flag, found.interval) == ("", "residuals")


def test_a_cliff_beside_the_optimum_moves_it_less_than_half_a_step() -> None:
    losses = bowl(-6.0)
    losses[GRID > -5.5] = 9.0
    found = find_optimum(GRID, losses[None])
    assert found.flag == "cliff"
    assert abs(found.x - -6.0) <= 0.5


def test_a_diverged_neighbour_leaves_the_grid_point() -> None:
    losses = bowl(-5.8)
    losses[GRID > -5.5] = np.inf
    found = find_optimum(GRID, losses[None])
    assert (found.x, found.grid, found.flag, found.interval) == (-6.0, -6.0, "cliff", "grid")


def test_one_diverged_seed_censors_its_grid_point() -> None:
    losses = np.stack([bowl(-6.0), bowl(-6.0)])
    losses[1, GRID == -6.0] = np.inf
    assert find_optimum(GRID, losses).grid in (-7.0, -5.0)


def test_an_optimum_at_the_end_of_the_grid_has_an_open_interval() -> None:
    assert find_optimum(GRID, bowl(-14.0)[None]).lo == -np.inf
    right = find_optimum(GRID, bowl(3.0)[None])
    assert (right.flag, right.hi, right.x) == ("edge", np.inf, -3.0)


def test_seeds_missing_at_some_points_are_averaged_over_those_there() -> None:
    losses = np.stack([bowl(-6.3), np.where(GRID > -5, np.nan, bowl(-6.3))])
    assert find_optimum(GRID, losses).x == pytest.approx(-6.3)


def test_a_plateau_has_no_vertex_but_an_optimum() -> None:
    found = find_optimum(GRID, np.ones((2, len(GRID))))
    assert found.x == found.grid


def test_all_diverged_is_an_error() -> None:
    with pytest.raises(ValueError, match="every run diverged: the sweep needs smaller values"):
        find_optimum(GRID, np.full((1, len(GRID)), np.inf))


def test_many_curves_at_once_equal_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    curves = np.stack([bowl(c) for c in rng.uniform(-12, -1, 50)])
    curves += 0.01 * rng.standard_normal(curves.shape)
    together = np.stack(vertices(GRID, curves))
    alone = np.stack([np.stack(vertices(GRID, c[None]))[:, 0] for c in curves], axis=1)
    np.testing.assert_array_equal(together, alone)


def test_intervals_cover_the_truth_of_bowls_that_are_no_parabolas() -> None:
    """A steep wall on one side, three seeds: nine in ten intervals hold the optimum."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        center = rng.uniform(-8.5, -4.5)
        wall = 0.1 * np.maximum(0, GRID - center - 1.5) ** 3
        losses = bowl(center) + wall + 0.004 * rng.standard_normal((3, len(GRID)))
        found = find_optimum(GRID, losses, draws=200, seed=trial)
        hits += found.lo <= center <= found.hi
    assert hits >= 0.85 * 200
