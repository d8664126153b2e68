"""Inverse roots of batches of positive semidefinite matrices, in two ways.

Eigenvalues and the coupled Newton iteration both give (A + ridge I)^-power.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

# Enough for the largest condition number of float64; the last steps converge quadratically.
ITERATIONS = 100


def eigh_root(a: Tensor, ridge: Tensor, power: float) -> Tensor:
    """(A + ridge I)^-power by eigenvalues.

    Args:
        a: symmetric positive semidefinite matrices, (n, d, d).
        ridge: a positive number per matrix, (n,).
        power: a positive number.

    >>> eigh_root(torch.diag(torch.tensor([4.0, 9.0]))[None], torch.zeros(1), 0.5)[0].diag()
    tensor([0.5000, 0.3333])
    """
    # The root of a matrix that is not finite is nan, so that a diverged loss remains visible.
    finite = a.isfinite().all(2).all(1)[:, None, None]
    values, vectors = torch.linalg.eigh(a.where(finite, torch.zeros_like(a)))
    # Eigenvalues below the rounding error of the largest one are noise and may be negative.
    scales = (values.clamp(min=0.0) + ridge[:, None]) ** -power
    root: Tensor = (vectors * scales[:, None, :]) @ vectors.mT
    return root.where(finite, torch.full_like(root, torch.nan))


def newton_root(a: Tensor, ridge: Tensor, power: float) -> Tensor:
    """(A + ridge I)^-power by the coupled Newton iteration, which suits accelerators.

    It takes only matrix products (Guo and Higham 2006, SIAM J. Matrix Anal. 28; as in Anil et al.
    2020, arXiv 2002.09018). Starting from M = zA and H = z^(1/p) I, with T = ((p+1) I - M) / p in
    each step, M <- T^p M tends to I and H <- H T to A^(-1/p). Once rounding errors stop a matrix
    from improving, its best H is kept.

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
    damped = a + ridge[:, None, None] * one
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
        if bool(((least < tolerance) | (~better & (least < 0.1))).all()):
            break
    return best


ROOTS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {"eigh": eigh_root, "newton": newton_root}
)
