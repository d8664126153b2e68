"""Damping and inverses of K-FAC's factors, factors of one size in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Damping = Literal["trace", "pi", "constant"]


def dampings(
    kind: Damping, a: Tensor | None, b: Tensor | None, damping: float, on_a: float, on_b: float
) -> tuple[Tensor | float, Tensor | float]:
    """What is added to the diagonals of the two factors.

    ``trace``: damping * tr(A) and damping * tr(B). The traces are the squared norms of a layer's
    inputs and of the gradients of its outputs, so this follows any width, depth and role by itself.
    ``constant``: `on_a` and `on_b`, which a plan scales. ``pi`` (Martens and Grosse 2015, arXiv
    1503.05671, section 6.3): sqrt(damping) times and over the root of the ratio of the factors'
    mean eigenvalues; under muP it is wrong for inputs and readouts, whatever the plan does.

    Args:
        kind: as above.
        a: factor of the inputs, (in, in), or its diagonal (in,), or None.
        b: factor of the output gradients, (out, out), or None.
        damping: for ``trace`` and ``pi``.
        on_a: for ``constant``.
        on_b: for ``constant``.
    """
    if kind == "constant":
        return on_a, on_b
    traces = [None if f is None else _trace(f) for f in (a, b)]
    if kind == "trace":
        return damping * _or_zero(traces[0]), damping * _or_zero(traces[1])
    means = [
        torch.ones(()) if f is None or t is None else t / len(f)
        for f, t in zip((a, b), traces, strict=True)
    ]
    ratio = (means[0] / means[1]).sqrt()
    return damping**0.5 * ratio, damping**0.5 / ratio


def inverses(
    names: Sequence[str], factors: Sequence[Tensor], added: Sequence[Tensor | float]
) -> list[Tensor]:
    """(F + c I)^-1 of each factor, by Cholesky, those of equal size in one call.

    A diagonal stays one. A factor that is zero has no inverse: where nothing was measured nothing
    moves, so zero stands for it.

    Raises:
        ValueError: a factor is not positive definite; the message names it.
    """
    found: dict[int, Tensor] = {}
    batches: dict[tuple[int, torch.device, torch.dtype], list[int]] = {}
    for i, (factor, c) in enumerate(zip(factors, added, strict=True)):
        if factor.ndim == 1:
            found[i] = 1 / (factor + c)
        else:
            batches.setdefault((len(factor), factor.device, factor.dtype), []).append(i)
    for members in batches.values():
        stack = torch.stack([factors[i] for i in members])
        traces = stack.diagonal(dim1=1, dim2=2).sum(1)
        empty = traces == 0
        on = torch.stack([torch.as_tensor(added[i], dtype=stack.dtype) for i in members]).to(stack)
        stack.diagonal(dim1=1, dim2=2).add_(torch.where(empty, 1.0, on)[:, None])
        root, failed = torch.linalg.cholesky_ex(stack)
        if failed.any():
            i = members[int(failed.nonzero()[0, 0])]
            raise ValueError(
                f"K-FAC's {names[i]} {tuple(factors[i].shape)} plus {float(added[i]):.3g} on its "
                "diagonal is not positive definite: raise damping, or lower the learning rate if "
                "the loss is no longer finite"
            )
        inverse = torch.cholesky_inverse(root) * (~empty)[:, None, None]
        found.update(zip(members, inverse, strict=True))
    return [found[i] for i in range(len(factors))]


def _trace(factor: Tensor) -> Tensor:
    return factor.sum() if factor.ndim == 1 else factor.diagonal().sum()


def _or_zero(trace: Tensor | None) -> Tensor | float:
    return 0.0 if trace is None else trace
