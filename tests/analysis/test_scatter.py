"""Optima that lie beside their line by more than their seeds show: a quirk of each width."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import paramz.analysis as pa
from paramz.analysis.curves import loss_curve
from paramz.analysis.drift import line_of
from paramz.analysis.scatter import scatter_of

BESIDE = (0.1, -0.2, 0.15, -0.05, 0.1, -0.1)


def runs(beside: tuple[float, ...], noise: float) -> pd.DataFrame:
    """Parabolas in half octaves, three seeds; the optimum of each width lies beside -6."""
    rng = np.random.default_rng(0)
    rows = [
        (64 * 2**k, x, seed, 3 + 0.1 * (x + 6 - off) ** 2 + noise * rng.standard_normal())
        for k, off in enumerate(beside)
        for seed in range(3)
        for x in np.arange(-11, -0.9, 0.5)
    ]
    return pd.DataFrame(rows, columns=["width", "x", "seed", "loss"])


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 1e-2])
@pytest.mark.parametrize("widths", [4, 6])
def test_scatter_that_seeds_do_not_show_makes_the_interval_that_of_students_t(
    noise: float, widths: int
) -> None:
    table = runs(BESIDE[:widths], noise)
    drift = pa.transfer(table.assign(lr=2**table.x), draws=600).drift.iloc[0]
    true = stats.linregress(range(widths), BESIDE[:widths])
    half = stats.t.ppf(0.975, widths - 2) * true.stderr
    assert drift.slope == pytest.approx(true.slope, abs=0.15 * half)
    assert drift.lo == pytest.approx(true.slope - half, abs=0.2 * half)
    assert drift.hi == pytest.approx(true.slope + half, abs=0.2 * half)


def test_the_value_to_use_is_as_unsure_as_the_scatter_is_wide() -> None:
    table = runs(BESIDE, 1e-3)
    groups = enumerate(table.groupby("width"))
    line = line_of([loss_curve(float(w), part, 600, k) for k, (w, part) in groups])  # type: ignore[arg-type]
    best, lo, hi = line.at(64 * 2**2.5)
    half = stats.t.ppf(0.975, 4) * stats.linregress(range(6), BESIDE).stderr
    half *= np.sqrt(np.sum((np.arange(6) - 2.5) ** 2) / 6)
    assert best == pytest.approx(-6 + np.mean(BESIDE), abs=0.02)
    assert (hi - lo) / 2 == pytest.approx(half, rel=0.2)


def test_optima_nearer_the_line_than_they_are_known_have_no_scatter() -> None:
    u, spread = np.arange(5.0), np.full(5, 0.1)
    rest = np.array([0.05, -0.05, 0.0, -0.05, 0.05])
    found = scatter_of(u, (-6 + 0.3 * u + rest)[None], np.zeros((1, 5)), spread)
    assert (found.excess, found.beside, found.freedom) == (1.0, 0.0, 3)
    assert not found.draws((7, 5)).any()


def test_the_scatter_beside_what_is_known_makes_up_what_is_seen() -> None:
    u = np.arange(60.0)
    rng = np.random.default_rng(1)
    spread = np.where(u % 2, 0.02, 0.3)
    seen = 0.1 * u + rng.normal(0, np.sqrt(spread**2 + 0.2**2))
    found = scatter_of(u, seen[None], np.zeros((1, 60)), spread)
    assert found.freedom == 58
    assert found.beside == pytest.approx(0.2, rel=0.2)
    assert found.draws((4000, 60)).std() == pytest.approx(found.beside, rel=0.05)


def test_few_optima_tell_badly_how_far_they_scatter() -> None:
    u, spread = np.arange(3.0), np.full(3, 0.1)
    far = scatter_of(u, (0.3 * u + [0.2, -0.4, 0.2])[None], np.zeros((1, 3)), spread)
    assert far.beside == pytest.approx(np.sqrt(0.24 - 0.01), rel=0.02)
    drawn = far.draws((20000, 3)) @ [-0.5, 0.0, 0.5]
    half = stats.t.ppf(0.975, 1) * far.beside / np.sqrt(2)
    assert np.quantile(drawn, 0.975) == pytest.approx(half, rel=0.1)


def test_two_optima_and_bounds_tell_of_no_scatter() -> None:
    u, places = np.arange(4.0), np.array([[-6.0, -2.0, -7.0, -1.0]])
    found = scatter_of(u, places, np.array([[0.0, 0.0, -1.0, 1.0]]), np.full(4, 0.01))
    assert (found.excess, found.beside, found.freedom) == (1.0, 0.0, 0)
    assert not found.draws((7, 4)).any()
