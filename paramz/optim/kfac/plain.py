"""That a layer computes what K-FAC takes it for, where its class has a forward of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paramz.optim.kfac.layers import PreconditionedLayer

_PLAIN = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.RMSNorm)
# What the output may be off by, of its norm: more than the rounding of bfloat16.
_OFF = 0.01


@torch.no_grad()
def require_plain(layer: PreconditionedLayer, x: Tensor, out: Tensor) -> None:
    """Refuse a layer whose output is another than that of torch's layer with its weights.

    A class may multiply its input or output, as mup's readout does. The gradient of the weight is
    no product of the layer's inputs and of the gradients of its outputs then, and steps would be
    off by the square of the factor.

    Args:
        layer: the layer.
        x: its input in one forward pass.
        out: its output there, before any hook.

    Raises:
        ValueError: the outputs differ; the message names the layer.

    >>> net = nn.Linear(3, 4)
    >>> x = torch.ones(2, 3)
    >>> require_plain(PreconditionedLayer("weight", net, "linear", net.weight), x, net(x))
    """
    module = layer.module
    kind = next(each for each in _PLAIN if isinstance(module, each))
    if type(module).forward is kind.forward:
        return
    plain = kind.forward(module, x)  # type: ignore[arg-type]
    same = plain.shape == out.shape
    if not same or (out - plain).float().norm() > _OFF * plain.float().norm():
        raise ValueError(
            f"{layer.name}: {type(module).__name__} has a forward of its own, which puts out "
            f"something else than nn.{kind.__name__} does with its weights, so that K-FAC would "
            "measure another layer. Train it with AdamW (Plan.split_groups), or make it an "
            f"nn.{kind.__name__} and multiply outside of it"
        )
