"""Parameters of a law that are given, or shared: equations between them, solved before the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paramz.analysis.columns import Array
from paramz.analysis.forms import Form


@dataclass(frozen=True, eq=False)
class Affine:
    """Internal parameters as an affine function of fewer that are free: theta = origin + z basis.

    Attributes:
        origin: shape (p,).
        basis: orthonormal rows, shape (free, p).
    """

    origin: Array
    basis: Array

    def free(self, theta: Array) -> Array:
        """The free coordinates nearest to internal parameters of shape (fits, p)."""
        return np.asarray((theta - self.origin) @ self.basis.T)

    def full(self, z: Array) -> Array:
        """Internal parameters of shape (fits, p) from free coordinates."""
        return np.asarray(self.origin + z @ self.basis)


def solve(
    form: Form, means: Array, fixed: Mapping[str, float], shared: Mapping[str, str]
) -> Affine | None:
    """What is left free when parameters are given, or equal to others.

    Args:
        form: the law.
        means: what was taken off the logs, shape (inputs,).
        fixed: values of parameters.
        shared: for a parameter, the other that it equals.

    Returns:
        the free directions; None where nothing is fixed or shared.

    Raises:
        ValueError: a name is not a parameter of the law, a value is out of its range, nothing is
            left free, or the parameter cannot be held in this form.

    >>> from paramz.analysis.forms import FORMS
    >>> tied = solve(FORMS["chinchilla"], np.zeros(2), {}, {"beta": "alpha"})
    >>> tied.basis.shape
    (4, 5)
    """
    if not fixed and not shared:
        return None
    unknown = {*fixed, *shared, *shared.values()} - set(form.params)
    if unknown:
        raise ValueError(
            f"{form.name!r} has the parameters {', '.join(form.params)}, not "
            f"{', '.join(sorted(unknown))}"
        )
    rows, right = [], []
    for name, value in fixed.items():
        slope, offset, log = _coordinate(form, means, name)
        if log and value <= 0:
            raise ValueError(
                f"{name} of {form.name!r} is positive, so it cannot be fixed at {value:g}"
            )
        rows.append(slope)
        right.append((np.log(value) if log else value) - offset)
    for name, other in shared.items():
        slope, offset, log = _coordinate(form, means, name)
        slope2, offset2, log2 = _coordinate(form, means, other)
        if log != log2:
            raise ValueError(f"{name} and {other} of {form.name!r} are of different kinds")
        rows.append(slope - slope2)
        right.append(offset2 - offset)
    equations = np.array(rows)
    rank = np.linalg.matrix_rank(equations)
    if rank == len(form.params):
        raise ValueError(f"all parameters of {form.name!r} are given: nothing is left to fit")
    if rank < len(rows):
        raise ValueError(f"{', '.join({**fixed, **shared})} are fixed or shared twice")
    origin = np.linalg.lstsq(equations, np.array(right), rcond=None)[0]
    return Affine(origin, np.linalg.svd(equations)[2][rank:])


def _coordinate(form: Form, means: Array, name: str) -> tuple[Array, float, bool]:
    """A parameter, or its logarithm, as slope @ theta + offset in the internal parameters."""
    at = form.params.index(name)
    rng = np.random.default_rng(0)
    points = rng.uniform(0.1, 0.9, (len(form.params) + 3, len(form.params)))
    values = form.natural(points, means)[:, at]
    design = np.column_stack([points, np.ones(len(points))])
    for log in (False, True):
        if log and (values <= 0).any():
            continue
        target = np.log(values) if log else values
        found = np.linalg.lstsq(design, target, rcond=None)[0]
        if np.allclose(design @ found, target, rtol=1e-9, atol=1e-9):
            return np.asarray(found[:-1], dtype=float), float(found[-1]), log
    raise ValueError(
        f"{name} of {form.name!r} cannot be fixed or shared: it is a ratio of what is fitted; "
        "write "
        "the law with paramz.analysis.custom and leave it out of the start"
    )
