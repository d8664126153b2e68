"""The SDP-based Lipschitz layer: a residual layer that is 1-Lipschitz by construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import Axes


class SLL(nn.Module):
    """y = x - 2 W T^-1 relu(W^T x + b), where T = diag(sum_j |W^T W|_ij q_j / q_i).

    Araujo et al. 2023 (arXiv 2303.03169), theorem 3: the layer is 1-Lipschitz for any W, b and
    q > 0. The input passes through, so the variance is kept except for what relu takes out. Under
    muP W is hidden (it reads axis 0 and writes it again; the inner size may grow or not), and b and
    log q are vectors.

    Args:
        width: the size of the last axis of input and output.
        inner: the size of the hidden layer; ``width`` if left out.

    >>> SLL(4)(torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """

    AXES: ClassVar[Mapping[str, Axes]] = {"weight": Axes(fan_in=(0,), fan_out=(1,))}

    def __init__(self, width: int, inner: int | None = None) -> None:
        super().__init__()
        inner = width if inner is None else inner
        self.weight = nn.Parameter(torch.randn(width, inner) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(inner))
        self.log_q = nn.Parameter(torch.zeros(inner))

    def forward(self, x: Tensor) -> Tensor:
        """Output (..., width) of an input (..., width)."""
        q = self.log_q.exp()
        t = (self.weight.T @ self.weight).abs() @ q / q
        inside = torch.relu(x @ self.weight + self.bias)
        return x - 2 * (inside / t) @ self.weight.T
