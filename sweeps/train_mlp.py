"""An MLP of any width on scikit-learn's digits (1797 images of 8x8 pixels, 10 classes).

`train` is what a sweep runs, `task` is what `paramz check` and `paramz plan` look at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from train_loop import fit

import paramz


class MLP(nn.Module):
    """Three linear layers, with biases or without, and relu: 64 pixels -> width, twice -> 10."""

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(64, width, bias)
        self.hidden = nn.Linear(width, width, bias)
        self.readout = nn.Linear(width, 10, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, 10) of images (batch, 64)."""
        return self.readout(torch.relu(self.hidden(torch.relu(self.first(x)))))


@cache
def digits(objective: str = "cross_entropy") -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 64) with mean 0 and std 1, and their classes (1797,).

    For ``"mse"`` the targets are one-hot, (1797, 10), and scaled to mean 0 and std 1, so that the
    loss is the share of the variance that is left unexplained.
    """
    from sklearn.datasets import load_digits

    if objective not in ("cross_entropy", "mse"):
        raise ValueError(f"objective={objective!r}: it must be cross_entropy or mse")
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(classes)
    if objective == "mse":
        y = (F.one_hot(y).float() - 0.1) / 0.3
    return (x - x.mean()) / x.std(), y


def unseen(config: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Every third image and its class, if the config asks that training not see them.

    With noise they have noise, too, the same for all models.
    """
    if not config.get("held_out"):
        return None
    if config.get("objective", "cross_entropy") != "cross_entropy":
        raise ValueError("held_out judges classes: leave objective at cross_entropy")
    x, y = digits()
    return noised(x[::3], config.get("noise", 0.0), torch.Generator().manual_seed(0)), y[::3]


def noised(images: torch.Tensor, noise: float, draw: torch.Generator) -> torch.Tensor:
    """The images with normal numbers of that standard deviation added to all pixels."""
    return images + noise * torch.randn(images.shape, generator=draw) if noise else images


def batch_of(
    size: int, objective: str, seed: int, step: int, held_out: bool = False, noise: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random batch whenever it is asked for the same seed and step.

    With noise, each pixel gets a normal number of that standard deviation, so no two images are
    the same.
    """
    x, y = digits(objective)
    if held_out:
        trained = torch.arange(len(x)) % 3 != 0
        x, y = x[trained], y[trained]
    draw = torch.Generator().manual_seed((seed << 32) + step)
    picked = torch.randint(len(x), (size,), generator=draw)
    return noised(x[picked], noise, draw), y[picked]


def digits_task(build: Callable[..., nn.Module], config: dict[str, Any]) -> paramz.Task:
    """The task of a model of digits; a config may hold batch_size (64), objective, held_out, noise.

    The objective is ``cross_entropy``, or ``mse`` for mean squared error. With held_out it trains
    on two thirds of the images and is judged by the others. Noise (0) is the standard deviation of
    what is added anew to the pixels, which themselves have one of 1.
    """
    size, objective = config.get("batch_size", 64), config.get("objective", "cross_entropy")
    drawn = (size, objective, config.get("seed", 0))
    how = {"held_out": config.get("held_out", False), "noise": config.get("noise", 0.0)}
    return paramz.Task(build=build, batch=partial(batch_of, *drawn, **how))


def train_digits(task: paramz.Task, config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model. Needs width and lr; loss is that of all images at the end.

    With noise it is the mean over the last tenth of the steps, whose images nobody has seen before.
    With held_out it is the mean over the last tenth of the steps, and the loss and accuracy on the
    images that training did not see stand beside it.
    """
    judges = unseen(config)
    fresh = judges or config.get("noise")
    everything = None if fresh else digits(config.get("objective", "cross_entropy"))
    return fit(task, config, trial, everything, held_out=judges)


def task(config: dict[str, Any]) -> paramz.Task:
    """The model and data of a config, which may hold bias (True); the rest see `digits_task`."""
    return digits_task(partial(MLP, bias=config.get("bias", True)), config)


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """What a sweep runs; see `train_digits`."""
    return train_digits(task(config), config, trial)
