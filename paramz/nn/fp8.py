"""FP8 matrix products: simulated anywhere, real on a GPU that has them.

E4M3 for values and E5M2 for gradients (Micikevicius et al. 2022, arXiv 2209.05433). Tensors are
cast without scales of their own, because unit scaling already puts them into the format's range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fp8:
    """The formats of a linear map's operands.

    Attributes:
        forward: format of values and weights.
        backward: format of gradients.
        real: multiply in FP8 (``torch._scaled_mm``: CUDA from compute capability 8.9 on; sizes
            must be multiples of 16) instead of rounding the operands and multiplying in their own
            precision. Real products sum in the hardware's accumulator and return bfloat16.
    """

    forward: torch.dtype = torch.float8_e4m3fn
    backward: torch.dtype = torch.float8_e5m2
    real: bool = False

    def product(
        self,
        kind_a: torch.dtype,
        a: Tensor,
        scale_a: float,
        kind_b: torch.dtype,
        b: Tensor,
        scale_b: float,
        alpha: float,
    ) -> Tensor:
        """``alpha * cast(scale_a a) @ cast(scale_b b)`` of matrices, in a's dtype."""
        left, right = cast(a, kind_a, scale_a), cast(b, kind_b, scale_b)
        if not self.real:
            wide = left.to(a.dtype) @ right.to(a.dtype)
            return wide if alpha == 1.0 else wide.mul_(alpha)
        one = torch.ones((), device=a.device)
        # cuBLAS wants the first operand stored by rows and the second by columns.
        return torch._scaled_mm(
            left.contiguous(),
            right.t().contiguous().t(),
            scale_a=one * alpha,
            scale_b=one,
            out_dtype=torch.bfloat16,
        ).to(a.dtype)


def cast(x: Tensor, kind: torch.dtype, factor: float = 1.0) -> Tensor:
    """``factor * x`` rounded to a float8 format; entries beyond its range get its largest value.

    >>> cast(torch.tensor([1000.0, 0.3, 1e-4]), torch.float8_e4m3fn).float().tolist()
    [448.0, 0.3125, 0.0]
    """
    largest = torch.finfo(kind).max
    scaled = x if factor == 1.0 else x * factor
    return scaled.clamp(-largest, largest).to(kind)
