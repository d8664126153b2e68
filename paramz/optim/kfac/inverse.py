"""Damping and inverses of K-FAC's factors; factors of one size are inverted as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Damping = Literal["trace", "pi", "constant"]


def dampings(
    kind: Damping, a: Tensor | None, b: Tensor | None, damping: float, on_a: float, on_b: float
) -> tuple[Tensor, Tensor]:
    """What is added to the diagonals of the two factors, one number per block.

    ``trace``: damping * tr(A) and damping * tr(B). The traces are the squared norms of a layer's
    inputs and of the gradients of its outputs, so this follows any width, depth and role by itself.

    ``constant``: ``on_a`` and ``on_b``, which a plan scales, divided by the number of blocks.

    ``pi`` (Martens and Grosse 2015, arXiv 1503.05671, section 6.3): sqrt(damping) * pi for A and
    sqrt(damping) / pi for B, divided by the number of blocks, where pi^2 is the mean eigenvalue of
    A over that of B. Under muP it is wrong for inputs and readouts, whatever the plan does.

    Args:
        kind: one of these.
        a: the factor of the inputs in blocks, (number, size, size), or its diagonal, or None.
        b: the factor of the output gradients in blocks, or None.
        damping: for ``trace`` and ``pi``.
        on_a: what ``constant`` adds to A.
        on_b: what ``constant`` adds to B.
    """
    device = next((f.device for f in (a, b) if f is not None), None)
    traces = [torch.ones(1, device=device) if f is None else _traces(f) for f in (a, b)]
    if kind == "trace":
        return damping * traces[0], damping * traces[1]
    sizes = [1 if f is None else f.shape[-1] * len(t) for f, t in zip((a, b), traces, strict=True)]
    pi = (traces[0].sum() / sizes[0] / (traces[1].sum() / sizes[1])).sqrt()
    both = (on_a, on_b) if kind == "constant" else (damping**0.5 * pi, damping**0.5 / pi)
    on = [torch.ones_like(t) * c / len(t) for t, c in zip(traces, both, strict=True)]
    return on[0], on[1]


def inverses(
    names: Sequence[str], factors: Sequence[Tensor], added: Sequence[Tensor]
) -> list[Tensor]:
    """(F + c I)^-1 for each factor F, divided by its number of blocks.

    A block of k holds about 1/k of the factor's trace, so its inverse is about k times that of the
    whole factor; hence the division. The inverse of a block of zeros is zero, so that nothing moves
    where nothing was measured. The inverse of a diagonal is a diagonal.

    Args:
        names: of the factors, for messages.
        factors: blocks, (number, size, size), or a diagonal, (size,).
        added: c for each block, (number,), or (1,) for a diagonal.

    Raises:
        ValueError: a factor is not positive definite; the message names it.
    """
    found: dict[int, Tensor] = {}
    batches: dict[tuple[int, torch.device, torch.dtype], list[int]] = {}
    for i, (factor, c) in enumerate(zip(factors, added, strict=True)):
        if factor.ndim == 1:
            found[i] = 1 / (factor + c)
        else:
            batches.setdefault((factor.shape[1], factor.device, factor.dtype), []).append(i)
    for members in batches.values():
        numbers = [len(factors[i]) for i in members]
        stack = torch.cat([factors[i] for i in members])
        empty = _traces(stack) == 0
        on = torch.cat([added[i] for i in members])
        stack.diagonal(dim1=1, dim2=2).add_(torch.where(empty, 1.0, on)[:, None])
        root, failed = torch.linalg.cholesky_ex(stack)
        if failed.any():
            first = int(failed.nonzero()[0, 0])
            i = [i for i, n in zip(members, numbers, strict=True) for _ in range(n)][first]
            raise ValueError(
                f"K-FAC's {names[i]} {tuple(factors[i].shape)} plus {float(on[first]):.3g} on its "
                "diagonal is not positive definite: raise damping, or lower the learning rate if "
                "the loss is no longer finite"
            )
        share = torch.cat([on.new_full((n,), 1 / n) for n in numbers]) * ~empty
        inverse = torch.cholesky_inverse(root) * share[:, None, None]
        found.update(zip(members, torch.split(inverse, numbers), strict=True))
    return [found[i] for i in range(len(factors))]


def _traces(factor: Tensor) -> Tensor:
    """One trace per block; of a diagonal, its sum."""
    if factor.ndim == 1:
        return factor.sum()[None]
    return factor.diagonal(dim1=1, dim2=2).sum(1)
