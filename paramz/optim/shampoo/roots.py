"""Inverse roots of batches of positive semidefinite matrices, in two ways.

Eigenvalues and the coupled Newton iteration both give (A + ridge I)^-power. A finite matrix has a
finite root here, whatever its rows; one that is not finite has a root of nan, so that a diverged
loss remains visible.

The precision is that of the matrices, float32 for parameters in bfloat16. bfloat16 has 8 bits: its
rounding errors are larger than any eigenvalue below 1/256 of the largest, and torch takes no
eigenvalues of it. float64 costs twice the time on a CPU and far more on most GPUs, and the ridge
leaves it little to gain; it is used for the few matrices at which float32 fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

# Enough for the largest condition number of float64; the last steps converge quadratically.
ITERATIONS = 100

_LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # type: ignore[attr-defined]


def eigh_root(a: Tensor, ridge: Tensor, power: float) -> Tensor:
    """(A + ridge I)^-power by eigenvalues.

    The ridge is added before the eigenvalues are taken: of matrices with rows of zeros LAPACK's
    float32 eigenvalues are nan at times. Where they still are, or do not converge, they are taken
    again in float64, and failing that the root of the diagonal is taken; either is warned of.

    Args:
        a: symmetric positive semidefinite matrices, (n, d, d).
        ridge: a positive number per matrix, (n,).
        power: a positive number.

    >>> eigh_root(torch.diag(torch.tensor([4.0, 9.0]))[None], torch.zeros(1), 0.5)[0].diag()
    tensor([0.5000, 0.3333])
    """
    ridge = ridge.clamp(min=torch.finfo(a.dtype).tiny)
    damped = _damped(a, ridge)
    try:
        root = _by_eigenvalues(damped, ridge, power)
    except _LinAlgError:  # of one matrix, for which all are given up
        return _one_by_one(damped, ridge, power)
    # The sum is the cheapest look at all entries.
    return root if bool(root.sum().isfinite()) else _one_by_one(damped, ridge, power)


def newton_root(a: Tensor, ridge: Tensor, power: float) -> Tensor:
    """(A + ridge I)^-power by the coupled Newton iteration, which suits accelerators.

    It takes only matrix products (Guo and Higham 2006, SIAM J. Matrix Anal. 28; as in Anil et al.
    2020, arXiv 2002.09018). Starting from M = zA and H = z^(1/p) I, with T = ((p+1) I - M) / p in
    each step, M <- T^p M tends to I and H <- H T to A^(-1/p). Once rounding errors stop a matrix
    from improving, its best H is kept. Matrices for which M stays away from I, such as indefinite
    ones, have their root taken by `eigh_root`, which is warned of.

    Args:
        a: symmetric positive semidefinite matrices, (n, d, d).
        ridge: a positive number per matrix, (n,).
        power: 1/p with an integer p.

    Raises:
        ValueError: 1/power is no integer.

    >>> root = newton_root(torch.diag(torch.tensor([4.0, 9.0]))[None], torch.zeros(1), 0.5)
    >>> root[0].diag()
    tensor([0.5000, 0.3333])
    """
    p = round(1 / power)
    if abs(p * power - 1) > 1e-9:
        raise ValueError(
            f"root='newton' takes exponents 1/p with an integer p, such as 1/4 and 1/2, and not "
            f"{power}: use root='eigh'"
        )
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    damped = _damped(a, ridge.clamp(min=torch.finfo(a.dtype).tiny))
    largest = damped.abs().amax((1, 2))[:, None, None]  # the norm squares: of 1e-30 it would be 0
    damped = damped / largest
    z = ((p + 1) / (2 * torch.linalg.matrix_norm(damped)))[:, None, None]
    m, h = z * damped, z ** (1 / p) * one
    tolerance = 50 * torch.finfo(a.dtype).eps
    best: Tensor = h
    least = (m - one).abs().amax((1, 2))
    for _ in range(ITERATIONS):
        t: Tensor = ((p + 1) * one - m) / p
        m, h = torch.linalg.matrix_power(t, p) @ m, h @ t
        error = (m - one).abs().amax((1, 2))
        better = error < least
        best = torch.where(better[:, None, None], h, best)
        least = torch.where(better, error, least)
        # The error of a small eigenvalue stays near 1 for some steps before it converges, so no
        # improvement counts as the end only once the error is small.
        if bool(((least < tolerance) | (~better & ~(least >= 0.1))).all()):
            break
    best = best * largest**-power
    lost = ~(least < 0.1)
    if bool(lost.any()):
        failed = int((lost & a.isfinite().all(2).all(1)).sum())
        _warn(failed, a, "by Newton's iteration", "their roots were taken by eigenvalues")
        best[lost] = eigh_root(a[lost], ridge[lost], power)
    return best


def _damped(a: Tensor, ridge: Tensor) -> Tensor:
    damped = a.clone()
    damped.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    return damped


def _by_eigenvalues(damped: Tensor, ridge: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(damped)
    # None is below the ridge but for rounding errors, which may even make it negative.
    scales = values.maximum(ridge[:, None]) ** -power
    root: Tensor = (vectors * scales[:, None, :]) @ vectors.mT
    return root


def _one_by_one(damped: Tensor, ridge: Tensor, power: float) -> Tensor:
    """The roots of matrices that failed as a batch: what fails alone, too, is taken otherwise."""
    roots = torch.full_like(damped, torch.nan)
    again = diagonal = 0
    for i in damped.isfinite().all(2).all(1).nonzero().flatten().tolist():
        one, on = damped[i : i + 1], ridge[i : i + 1]
        root = _attempt(one, on, power)
        if root is None:
            again += 1
            root = _attempt(one.to("cpu", torch.float64), on.to("cpu", torch.float64), power)
        if root is None:
            diagonal += 1
            root = (one.diagonal(dim1=1, dim2=2).maximum(on[:, None]) ** -power).diag_embed()
        roots[i] = root[0].to(roots)
    _warn(again, damped, "", "their roots were taken in float64")
    _warn(diagonal, damped, "in float64 either", "the roots of their diagonals were taken")
    return roots


def _attempt(one: Tensor, ridge: Tensor, power: float) -> Tensor | None:
    try:
        root = _by_eigenvalues(one, ridge, power)
    except _LinAlgError:
        return None
    return root if bool(root.isfinite().all()) else None


def _warn(failed: int, a: Tensor, how: str, instead: str) -> None:
    if failed:
        size = f"{a.shape[1]} x {a.shape[1]}, {str(a.dtype).removeprefix('torch.')}"
        warnings.warn(
            f"Shampoo: {failed} of {len(a)} factors ({size}) did not converge {how}".rstrip()
            + f"; {instead}. A larger relative_eps makes factors easier to invert",
            RuntimeWarning,
            stacklevel=2,
        )


ROOTS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {"eigh": eigh_root, "newton": newton_root}
)
