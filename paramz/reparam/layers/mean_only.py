"""Mean-only batch normalization, the companion of weight normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MeanOnlyBatchNorm(nn.Module):
    """y = t - mean[t] + b: centre every channel on the batch, without dividing by its std.

    Salimans and Kingma 2016 (arXiv 1602.07868), section 4: the length of the weight is already g,
    so only the mean remains to be taken out. Put the layer behind a weight-normalized layer without
    bias. In eval mode the running mean is used. The bias is a vector under muP.

    Args:
        channels: the size of axis 1 of the input, (batch, channels, ...).
        momentum: of the running mean, as in torch's batch norm.

    >>> norm = MeanOnlyBatchNorm(2)
    >>> norm(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]], grad_fn=<AddBackward0>)
    """

    running_mean: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, t: Tensor) -> Tensor:
        """The centred input, (batch, channels, ...).

        Raises:
            ValueError: the size of axis 1 is not the layer's number of channels.
        """
        if t.dim() < 2 or t.shape[1] != len(self.bias):
            raise ValueError(
                f"mean-only batch norm of {len(self.bias)} channels got an input {tuple(t.shape)}: "
                "channels are axis 1"
            )
        shape = (1, -1, *(1 for _ in range(t.dim() - 2)))
        if self.training:
            mean = t.mean([axis for axis in range(t.dim()) if axis != 1])
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        else:
            mean = self.running_mean
        return t - mean.view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        """Its arguments."""
        return f"{len(self.bias)}, momentum={self.momentum}"
