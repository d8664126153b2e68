"""A small convolutional network of any width on scikit-learn's digits, as images of 8x8 pixels.

`train` is what a sweep runs, `task` is what `paramz check` and `paramz plan` look at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from train_mlp import digits_task, train_digits

import paramz


class ConvNet(nn.Module):
    """Two 3x3 convolutions, the second with stride 2, and a readout of the mean over positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.hidden = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.readout = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, 10) of images (batch, 64)."""
        x = torch.relu(self.first(x.view(-1, 1, 8, 8)))
        return self.readout(torch.relu(self.hidden(x)).mean((2, 3)))


def task(config: dict[str, Any]) -> paramz.Task:
    """The model and data of a config; see train_mlp.py."""
    return digits_task(ConvNet, config)


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """What a sweep runs; see train_mlp.py."""
    return train_digits(task(config), config, trial)
