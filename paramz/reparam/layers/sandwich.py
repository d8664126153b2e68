"""The sandwich layer: a direct parametrization, 1-Lipschitz whatever its parameters are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from paramz.anatomy.axes import OUT_IN, Axes


class Sandwich(nn.Module):
    """y = sqrt(2) A^T Psi relu(sqrt(2) Psi^-1 B x + b), where A A^T + B B^T = I.

    Wang and Manchester 2023 (arXiv 2301.11526), theorem 3.2: the layer is 1-Lipschitz for any X, Y,
    d and b, where Psi = diag(e^d) and, by the Cayley transform, Z = X - X^T + Y^T Y, A^T = (I +
    Z)^-1 (I - Z) and B^T = -2 Y (I + Z)^-1. It starts with A A^T = B B^T = I/2 (in the span of Y),
    so that only relu changes the variance. Under muP X and Y are hidden where both sizes grow, and
    d and b are vectors. Behind inputs of a fixed size no role fits Y: a norm that is bounded is
    spread over more outputs in wider models, while muP keeps their size. Begin with another layer.

    Args:
        inputs: the size of the last axis of the input.
        outputs: the size of the last axis of the output.

    >>> Sandwich(6, 4)(torch.ones(2, 6)).shape
    torch.Size([2, 4])
    """

    AXES: ClassVar[Mapping[str, Axes]] = {"x": OUT_IN, "y": Axes(fan_in=(0,), fan_out=(1,))}

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        y = nn.init.orthogonal_(torch.empty(inputs, outputs), gain=math.tan(math.pi / 8))
        self.y = nn.Parameter(y)
        self.x = nn.Parameter(torch.zeros(outputs, outputs))
        self.d = nn.Parameter(torch.zeros(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def matrices(self) -> tuple[Tensor, Tensor]:
        """A (outputs, outputs) and B (outputs, inputs)."""
        z = self.x - self.x.T + self.y.T @ self.y
        one = torch.eye(len(z), dtype=z.dtype, device=z.device)
        a_t = torch.linalg.solve(one + z, one - z)
        b = -2 * torch.linalg.solve((one + z).T, self.y.T)
        return a_t.T, b

    def forward(self, x: Tensor) -> Tensor:
        """Output (..., outputs) of an input (..., inputs)."""
        a, b = self.matrices()
        psi = self.d.exp()
        inside = torch.relu(math.sqrt(2) * (x @ b.T) / psi + self.bias)
        return math.sqrt(2) * (inside * psi) @ a
