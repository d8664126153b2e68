"""How far optima lie beside their line that their own intervals do not explain.

Seeds do not show it: a trend that bends, or a quirk of one size, is the same for all of its seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramz.analysis.bounded import fit_line
from paramz.analysis.columns import Array

# No optimum is known better than this, in octaves, when it is asked whether all lie on a line.
FINEST = 0.02
# How many standard deviations of the scatter are tried.
_TRIED = 120


@dataclass(frozen=True)
class Scatter:
    """The scatter of optima beside their line.

    Attributes:
        excess: Birge's ratio: the root of chi squared over its degrees of freedom, at least 1.
        beside: standard deviation of what is not explained, octaves; 0 where the optima's own
            intervals explain all.
        freedom: the degrees of freedom; 0 where nothing can be told.
    """

    excess: float
    beside: float
    freedom: int

    def draws(self, shape: tuple[int, ...]) -> Array:
        """Offsets beside the line, shape (draws, optima).

        The variance of each draw is as uncertain as few optima tell it: over a chi squared with
        their degrees of freedom, as in Student's t (Gelman et al. 2013, section 3.2).
        """
        if not self.beside:
            return np.zeros(shape)
        rng = np.random.default_rng(2)
        variance = self.beside**2 * self.freedom / rng.chisquare(self.freedom, (shape[0], 1))
        return np.asarray(np.sqrt(variance) * rng.standard_normal(shape))


def scatter_of(u: Array, positions: Array, sides: Array, spread: Array) -> Scatter:
    """The scatter beside a line.

    It is a variance of its own beside those of the optima, the one under which chi squared is what
    it is on average (Paule and Mandel 1982); none where chi squared is no more than that.

    Args:
        u: log2 of the scale, shape (optima,).
        positions: of the optima, shape (1, optima).
        sides: 0 where an optimum was seen, shape (1, optima).
        spread: standard deviations of the optima, shape (optima,).
    """
    seen = sides[0] == 0
    freedom = int(seen.sum()) - 2
    if freedom < 1:
        return Scatter(1.0, 0.0, 0)
    far = float(np.ptp(positions[0])) + FINEST
    tried = np.concatenate([[0.0], far * np.geomspace(1e-4, 10, _TRIED)])
    many = np.ones((len(tried), 1))
    slope, height = fit_line(
        u - u.mean(), many * positions, many * sides, weights(spread, tried[:, None])
    )
    rest = (positions - height[:, None] - slope[:, None] * (u - u.mean())) ** 2 * seen
    known = spread**2 + 1e-12
    chi = np.minimum.accumulate((rest / (known + tried[:, None] ** 2)).sum(axis=1))
    beside = float(np.interp(freedom, chi[::-1], tried[::-1]))
    birge = np.sqrt((rest[0] / np.maximum(spread, FINEST) ** 2).sum() / freedom)
    return Scatter(float(max(1.0, birge)), beside, freedom)


def weights(spread: Array, beside: Array | float) -> Array:
    """Of optima in a fit of their line, shape (optima,), or (tried, optima) for many.

    Noise estimates of few points are noisy: half of each weight is what all curves have.
    """
    return np.asarray(1 / (spread**2 + np.median(spread) ** 2 + beside**2 + 1e-12))
