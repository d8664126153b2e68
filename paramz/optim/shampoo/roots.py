"""Inverse roots of batches of positive semidefinite matrices: eigenvalues or coupled Newton.

Both return (A + ridge I)^-p.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

# Enough for the largest condition number of float64; the last steps are quadratic.
ITERATIONS = 100


def eigh_root(a: Tensor, ridge: Tensor, power: float) -> Tensor:
    """(A + ridge I)^-power by eigenvalues.

    Args:
        a: symmetric positive semidefinite, (n, d, d).
        ridge: one per matrix, (n,), positive.
        power: positive.

    >>> eigh_root(torch.diag(torch.tensor([4.0, 9.0]))[None], torch.zeros(1), 0.5)[0].diag()
    tensor([0.5000, 0.3333])
    """
    # Of what is not finite the root is nan, so that a diverged loss shows as one.
    finite = a.isfinite().all(2).all(1)[:, None, None]
    values, vectors = torch.linalg.eigh(a.where(finite, torch.zeros_like(a)))
    # Eigenvalues below the rounding of the largest are noise, which may be negative.
    scales = (values.clamp(min=0.0) + ridge[:, None]) ** -power
    root: Tensor = (vectors * scales[:, None, :]) @ vectors.mT
    return root.where(finite, torch.full_like(root, torch.nan))


def newton_root(a: Tensor, ridge: Tensor, power: float) -> Tensor:
    """(A + ridge I)^-power by coupled Newton iteration: matrix products alone, for accelerators.

    Guo and Higham 2006 (SIAM J. Matrix Anal. 28), as in Anil et al. 2020 (arXiv 2002.09018): from
    M = zA and H = z^(1/p) I, with T = ((p+1) I - M) / p, M <- T^p M tends to I and H <- H T to
    A^(-1/p). A matrix that stops improving, as rounding has it, keeps its best H.

    Args:
        a: symmetric positive semidefinite, (n, d, d).
        ridge: one per matrix, (n,), positive.
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
            f"root='newton' takes exponents 1/p with an integer p, such as 1/4 and 1/2; {power} is "
            "none: use root='eigh'"
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
        # Small eigenvalues grow by a factor before they converge, with an error near 1 until then.
        if bool(((least < tolerance) | (~better & (least < 0.1))).all()):
            break
    return best


ROOTS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {"eigh": eigh_root, "newton": newton_root}
)
