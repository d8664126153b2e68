"""Output gradients whose second moment is the Fisher matrix of a model's predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Likelihood = Literal["categorical", "gaussian"]
Fisher = Literal["mc", "exact", "empirical"]


def predictions(output: Any) -> Tensor:
    """The tensor of predictions, (data, ..., outputs), in what a model returns.

    Args:
        output: a tensor, an object or mapping with ``logits``, or a tuple that starts with one of
            the tensors.

    Raises:
        TypeError: no tensor can be recognised as the predictions.

    >>> predictions((torch.zeros(2, 3), None)).shape
    torch.Size([2, 3])
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif not isinstance(output, Tensor):
        first = output[0] if isinstance(output, tuple) and output else None
        found = getattr(output, "logits", first)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"K-FAC needs the predictions of the model, but it returns {type(output).__name__} "
            "that neither starts with a tensor nor has logits: let forward return the predictions, "
            "or give K-FAC the part of the model that does"
        )
    return found


def count(output: Tensor) -> int:
    """The number of terms in the loss: one per row of the predictions (data, ..., outputs)."""
    return output.numel() // _classes(output)


def fisher_vectors(
    output: Tensor, likelihood: Likelihood, fisher: Fisher, generator: torch.Generator
) -> Iterator[Tensor]:
    """Gradients v of log-likelihoods with respect to the predictions, such that sum v v^T = H.

    H is the Hessian of the loss of one prediction: diag(p) - p p^T for cross-entropy
    (``categorical``), and 2/C for torch's mean squared error of C outputs (``gaussian``). It equals
    the expectation of v v^T over targets that the model itself draws (Martens 2020, arXiv
    1412.1193). ``exact`` takes that expectation exactly, with a vector for each position and
    output; ``mc`` estimates it by one draw.

    Args:
        output: predictions, (data, ..., outputs).
        likelihood: what the loss takes the predictions for.
        fisher: ``exact`` or ``mc``.
        generator: the random state for ``mc``, on the device of the predictions.

    Yields:
        vectors in the shape of the predictions.

    Raises:
        ValueError: a prediction is not finite, or has one class, whose likelihood is certain.
    """
    flat = output.detach().float() if output.dtype in _HALF else output.detach()
    classes = _classes(output)
    rows = flat.reshape(-1, classes)
    if not rows.isfinite().all():
        raise ValueError(
            f"K-FAC got predictions {tuple(output.shape)} that are not finite: training has "
            "diverged; lower the learning rate or raise damping"
        )
    if likelihood == "categorical" and classes == 1:
        raise ValueError(
            f"K-FAC takes predictions {tuple(output.shape)} for logits, of which there is one: its "
            "softmax is always 1, so that nothing would move. For a binary cross-entropy let the "
            "model return two, torch.cat([torch.zeros_like(z), z], -1), with cross_entropy, which "
            "is the same loss; for mse_loss give likelihood='gaussian'"
        )
    if fisher == "mc":
        if likelihood == "categorical":
            p = rows.softmax(1)
            drawn = torch.multinomial(p, 1, generator=generator)
            v = p.scatter_add(1, drawn, -torch.ones_like(p[:, :1]))
        else:
            v = torch.empty_like(rows).normal_(generator=generator) * (2 / classes) ** 0.5
        yield v.reshape(output.shape).to(output.dtype)
        return
    chances = rows.softmax(1)
    positions = rows.reshape(len(output), -1, classes).shape[1]
    for c in range(classes):
        if likelihood == "gaussian":
            v = torch.zeros_like(rows)
            v[:, c] = (2 / classes) ** 0.5
        else:
            v = -chances * chances[:, c : c + 1].sqrt()
            v[:, c] += chances[:, c].sqrt()
        # The losses at two positions may both depend on a layer, and the product of their gradients
        # is no part of the Fisher matrix: so there is one vector for each position.
        for position in range(positions):
            one = torch.zeros_like(v).reshape(len(output), positions, classes)
            one[:, position] = v.reshape(len(output), positions, classes)[:, position]
            yield one.reshape(output.shape).to(output.dtype)


_HALF = (torch.float16, torch.bfloat16)


def _classes(output: Tensor) -> int:
    return output.shape[-1] if output.ndim > 1 else 1
