"""How much of a linear map's output comes from terms that add up, and how much from random ones.

An output is a sum over its inputs, ``y_i = sum_j W_ij x_j``. Terms that do not know of each other
make ``mean(y^2) = mean(sum_j W_ij^2 x_j^2)``, whatever their signs. What exceeds that is aligned:
it is as large as the sum of their sizes allows. Of an update, the random part shrinks like
width^-1/2 and the aligned part stays (Everett et al. 2024 measure the same ratio as alignment).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from paramz.anatomy.names import TRANSPOSED_LINEAR
from paramz.check.values import size

_ROWS = 256  # of the batch, evenly spread: all of them would be half of a check's work
_PICTURES = 8
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def random_part(
    module: nn.Module, weights: Mapping[str, torch.Tensor], x: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean square of a linear module's output at some weights, and of its random part.

    Args:
        module: a linear layer or a convolution, of torch's own class or Hugging Face's Conv1D, or
            an embedding.
        weights: ``weight``, and possibly ``bias``: the module's, or the change of them.
        x: what goes in.

    Returns:
        the two numbers, still on the device; None for any other module. A row of an embedding is
        no sum, so all of it counts as random.

    >>> layer, x = nn.Linear(400, 300, bias=False), torch.ones(1, 400)
    >>> ones, noise = torch.ones(300, 400), torch.randn(300, 400)
    >>> parts = [random_part(layer, {"weight": weight}, x) for weight in (ones, noise)]
    >>> [round(float(whole / random)) for whole, random in parts]
    [400, 1]
    """
    kind, weight, bias = type(module), weights.get("weight"), weights.get("bias")
    if x is None or weight is None or weights.keys() - {"weight", "bias"}:
        return None
    if kind is nn.Embedding:
        square = F.embedding(x, weight).float().square().mean()
        return square, square
    if not x.is_floating_point() or x.is_complex():
        return None
    squares = None if bias is None else bias.square()
    x = x.detach()
    if kind is nn.Linear or kind.__name__ == TRANSPOSED_LINEAR:
        rows = x.flatten(0, -2) if x.dim() > 1 else x[None]
        rows = rows[:: max(1, len(rows) // _ROWS)]
        matrix = weight if kind is nn.Linear else weight.mT
        # The mean of x^2 W^2 over rows and outputs needs no product: both means come first.
        random = (rows.square().mean(0) * matrix.square().mean(0)).sum()
        random = random if squares is None else random + squares.mean()
        return size(F.linear(rows, matrix, bias)).square(), random
    if isinstance(module, _CONVOLUTIONS) and module.padding_mode == "zeros":
        some = x[:: max(1, len(x) // _PICTURES)]
        whole = module._conv_forward(some, weight, bias)
        random = module._conv_forward(some.square(), weight.square(), squares)
        return whole.square().mean(), random.mean()
    return None


def aligned_share(whole: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
    """The share, in mean square, of an update's effect that is aligned: 0 to 1.

    Args:
        whole: mean square of what the change of the weights does, as of `random_part`.
        random: that of its random part. Inputs that do not grow count like all others.

    >>> float(aligned_share(torch.tensor(4.0), torch.tensor(1.0)))
    0.75
    """
    return ((whole - random) / whole.clamp(min=1e-30)).clamp(0.0, 1.0)
