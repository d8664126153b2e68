"""An MLP of any width on scikit-learn's digits (1797 images of 8x8 pixels, 10 classes).

`train` is what a sweep runs, `task` is what `paramz check` and `paramz plan` look at.
"""

from functools import cache, partial
from typing import Any

import torch
from torch import nn

import paramz


class MLP(nn.Module):
    """Three linear layers and relu: 64 pixels -> width -> width -> 10 classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.hidden = nn.Linear(width, width)
        self.readout = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, 10) of images (batch, 64)."""
        return self.readout(torch.relu(self.hidden(torch.relu(self.first(x)))))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 64) with mean 0 and std 1, and their classes (1797,)."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(classes)


def batch_of(size: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random batch whenever it is asked for the same step."""
    x, y = digits()
    picked = torch.randint(len(x), (size,), generator=torch.Generator().manual_seed(step))
    return x[picked], y[picked]


def task(config: dict[str, Any]) -> paramz.Task:
    """The model and data of a config; every key has a default."""
    return paramz.Task(build=MLP, batch=partial(batch_of, config.get("batch_size", 64)))


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model. Needs width and lr; loss is that of all images at the end."""
    from train_loop import fit

    chosen = task(config)
    return fit(chosen, config, trial, lambda model: chosen.loss(model, digits()))
