"""Curves that have a bend in common and one of their own each, for many strengths of both.

All that is linear: given how strong bends are, the common one and those of each curve follow from
the losses by least squares, and so does how well each pair of strengths explains these. Everything
is in units of the noise, which is not known either and is drawn last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array, Mask
from paramz.analysis.seeds import normal_equations, pure_noise

# Strengths of the bend that all have in common: changes of half the curvature per octave, in units
# of that of a bowl.
COMMON = np.array([0.05, 0.15, 0.4, 1.0, 2.5, 6.0])
# Those of the bends of their own, and how likely each is beforehand.
OWN = np.array([1e-4, 0.03, 0.08, 0.2, 0.5, 1.2, 3.0])
PRIOR = np.array([0.4, 0.2, 0.18, 0.12, 0.05, 0.03, 0.02])
# From this strength on bowls are not alike. A spline sees half of a corner that only some have.
UNLIKE = 0.4


@dataclass(frozen=True, eq=False)
class Data:
    """What the losses of one curve say of bends, the columns taken out that nothing holds back.

    Attributes:
        inverse: of the Gram matrix of the first two columns, shape (2, 2).
        first: their coefficients where nothing bends, shape (2,).
        cross: by how much bends change them, shape (2, bends).
        size: how much is known of each direction of bends, shape (bends,).
        way: the directions, in columns, shape (bends, bends).
        pull: towards where the losses pull in each, shape (bends,).
        square: what is left of the losses, sum of squares.
        rows: how many there are, less the coefficients that were taken out.
        rough: noise, by how seeds differ.
        floor: noise of rounding.
    """

    inverse: Array
    first: Array
    cross: Array
    size: Array
    way: Array
    pull: Array
    square: float
    rows: int
    rough: float
    floor: float

    @classmethod
    def of(cls, columns: Array, losses: Array) -> Data:
        """What losses say, shape (seeds, points), of columns, shape (points, columns)."""
        gram, moment, total, rows = normal_equations(columns, losses)
        ridge = 1e-13 * np.diag(np.diag(gram)[:2])
        first = np.linalg.solve(gram[:2, :2] + ridge, moment[:2])
        # All that follows is about what these leave, so that no digits cancel.
        rest = losses - columns[:, :2] @ first
        _, moment, square, _ = normal_equations(columns, rest)
        inverse = np.linalg.inv(gram[:2, :2] + ridge).astype(np.float64)
        cross = inverse @ gram[:2, 2:]
        left = gram[2:, 2:] - gram[2:, :2] @ cross
        size, way = np.linalg.eigh((left + left.T) / 2)
        seen = size > 1e-12 * size[-1]
        pull = np.where(seen, way.T @ (moment[2:] - gram[2:, :2] @ inverse @ moment[:2]), 0.0)
        square = max(square - float(moment[:2] @ inverse @ moment[:2]), 0.0)
        floor = 1e-14 * np.nanmax(np.abs(losses)) + 1e-6 * np.sqrt(total / max(rows, 1))
        return cls(
            inverse,
            np.asarray(first + inverse @ moment[:2], dtype=np.float64),
            cross,
            np.where(seen, size, 0.0),
            way,
            pull,
            square,
            rows - 2,
            min(pure_noise(losses), float(np.sqrt(square / max(rows - 2, 1)))),
            float(floor + 1e-300),
        )


@dataclass(frozen=True, eq=False)
class Fits:
    """Curves for each pair of strengths; all in units of the noise, which is drawn last.

    Attributes:
        data: of each curve.
        height: of each curve.
        weight: how likely each pair is, shape (models,).
        own: strength of bends of one's own in units of the bowl, likewise.
        variance: the same squared, in units of the noise, likewise.
        center: the common bend, shape (models, bends).
        root: square roots of its covariance, shape (models, bends, bends).
        square: sum of squares that is left, shape (models,).
        freedom: its degrees of freedom.
    """

    data: list[Data]
    height: Array
    weight: Array
    own: Array
    variance: Array
    center: Array
    root: Array
    square: Array
    freedom: int

    @property
    def noise(self) -> float:
        """Standard deviation of one loss, if bowls are alike."""
        alike = np.where(self.own < UNLIKE, self.weight, 0.0) + 1e-300
        return float(np.sqrt(alike @ self.square / alike.sum() / self.freedom))

    @property
    def common(self) -> Array:
        """The common bend, shape (bends,)."""
        return np.asarray(self.weight @ self.center)

    @property
    def unlike(self) -> float:
        """How likely it is that shapes differ."""
        return float(self.weight[self.own >= UNLIKE].sum())

    def mean(self) -> Array:
        """Coefficients of the average of each curve, shape (curves, columns)."""
        found = []
        for one, height in zip(self.data, self.height, strict=True):
            about, _ = _own(one, height * self.center, self.variance)
            bend = self.weight @ about
            found.append(np.concatenate([one.first - one.cross @ bend, bend]))
        return np.array(found)

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[Array, Mask]:
        """Coefficients of curves, shape (draws, curves, columns), and whether shapes differ."""
        pick = rng.choice(len(self.weight), size=draws, p=self.weight)
        noise = np.sqrt(self.square[pick] / rng.chisquare(self.freedom, draws))[:, None]
        shake = rng.standard_normal((draws, 1, self.center.shape[1]))
        common = self.center[pick] + noise * (shake @ self.root[pick])[:, 0]
        found = []
        for one, height in zip(self.data, self.height, strict=True):
            about, error = _own(one, height * common, self.variance[pick])
            bend = about + noise * (error * rng.standard_normal(error.shape)) @ one.way.T
            slack = rng.standard_normal((draws, 2)) @ np.linalg.cholesky(one.inverse).T
            found.append(np.column_stack([one.first - bend @ one.cross.T + noise * slack, bend]))
        return np.stack(found, axis=1), self.own[pick] >= UNLIKE


def _own(one: Data, common: Array, variance: Array) -> tuple[Array, Array]:
    """Bends of a curve about the common one: mean, and standard deviation in its directions.

    Args:
        one: the curve.
        common: shape (fits, bends).
        variance: of bends of its own, shape (fits,).
    """
    spread = variance[:, None]
    known = 1 + spread * one.size
    about = (common @ one.way + spread * one.pull) / known
    return about @ one.way.T, np.sqrt(spread / known)


def fit_strengths(data: list[Data], height: Array, bend: float, noise: float | None) -> Fits:
    """The curves for each pair of strengths, weighted by how well they explain the losses.

    Args:
        data: of each curve.
        height: by how much each curve is higher than what all have in common, shape (curves,).
        bend: half the curvature of a bowl, the unit of strengths.
        noise: about the standard deviation of one loss; None where it is not known.
    """
    freedom = sum(one.rows for one in data)
    rough = np.sqrt(sum(one.rough**2 for one in data) / len(data)) if noise is None else noise
    floor = max(one.floor for one in data)
    unit = (bend / max(rough, floor)) ** 2
    together, own = (a.ravel() for a in np.meshgrid(COMMON, OWN, indexing="ij"))
    variance = unit * own**2
    size = np.stack([one.size for one in data])
    pull = np.stack([one.pull for one in data])
    kept = 1 / (1 + variance[:, None, None] * size)
    # All curves side by side: what each knows of the common bend.
    ways = np.concatenate([h * one.way for h, one in zip(height, data, strict=True)], axis=1)
    known = (size * kept).reshape(len(kept), -1)
    bends = size.shape[1]
    hessian = (ways * known[:, None, :]) @ ways.T
    hessian[:, np.arange(bends), np.arange(bends)] += (1 / (unit * together**2))[:, None]
    # Where no loss sees a bend, rounding must not seem to.
    hessian += 1e-13 * np.eye(bends) * np.trace(hessian, axis1=1, axis2=2)[:, None, None]
    factor = np.linalg.cholesky(hessian)
    root = np.linalg.inv(factor)
    half = (root @ ((pull * kept).reshape(len(kept), -1) @ ways.T)[:, :, None])[:, :, 0]
    center = (half[:, None, :] @ root)[:, 0]
    square = sum(one.square for one in data) - (half**2).sum(axis=1)
    square -= variance * (pull**2 * kept).sum(axis=(1, 2))
    square = np.maximum(square, 0.0) + freedom * floor**2
    score = (
        np.tile(np.log(PRIOR), len(COMMON))
        - 0.5 * freedom * np.log(square)
        - bends * np.log(together)
        - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        + 0.5 * np.log(kept).sum(axis=(1, 2))
    )
    weight = np.exp(score - score.max())
    return Fits(data, height, weight / weight.sum(), own, variance, center, root, square, freedom)
