"""Digits with reparametrized weights: an MLP and a small conv net, trained on part of the images.

`train` is what weight_norm.yaml and compander.yaml run. Of the 1797 images, 449 are for testing and
348 for validation (to choose lr and decay); the first `train_size` of the others are for training.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.reparam import MeanOnlyBatchNorm, weight_norm_init_


def mlp(width: int, norm: bool = False) -> nn.Module:
    """64 pixels -> width -> width -> width -> 10 classes."""
    sizes = [64, width, width, width]
    layers: list[nn.Module] = [nn.Flatten()]
    for n, m in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(n, m, bias=not norm), *([MeanOnlyBatchNorm(m)] if norm else [])]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(width, 10))


def conv(width: int, norm: bool = False) -> nn.Module:
    """Three convolutions on 8x8 pixels, the mean over positions, and a readout."""
    layers: list[nn.Module] = []
    for n, m, stride in ((1, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1)):
        layers.append(nn.Conv2d(n, m, 3, stride=stride, padding=1, bias=not norm))
        layers += [*([MeanOnlyBatchNorm(m)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


@cache
def split(train_size: int, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images (n, 1, 8, 8) and classes of training, validation and test."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    x, y = (x - x.mean()) / x.std(), torch.tensor(classes)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    rest = order[797:][torch.randperm(1000, generator=torch.Generator().manual_seed(seed))]
    parts = {"test": order[:449], "validation": order[449:797], "train": rest[:train_size]}
    return {name: (x[i], y[i]) for name, i in parts.items()}


def build(config: dict[str, Any], width: int) -> nn.Module:
    """The model of a config, reparametrized as its ``variant`` says."""
    variant = config.get("variant", "plain")
    make = {"mlp": mlp, "conv": conv}[config.get("model", "mlp")]
    model = make(width, variant == "mean-only")
    if variant.startswith("weight-norm") or variant in ("mean-only", "plain-data"):
        paramz.reparametrize_(model, paramz.WeightNorm())
    elif variant.startswith("compander"):
        # The slope at zero is a/b: 1 here, and 4 for the variants "4x".
        b = 1.0 if variant.endswith("4x") else 4.0
        paramz.reparametrize_(model, paramz.Compander(4.0, b, learned="learned" in variant))
    elif variant != "plain":
        raise ValueError(
            f"variant={variant!r}: it must be plain, plain-data, mean-only, or start with "
            "weight-norm or compander"
        )
    return model


def train(config: dict[str, Any], trial: Any) -> dict[str, float]:
    """Train one model; needs lr. Logs the training loss of every step.

    Returns:
        ``loss``: the mean training loss over all steps, which says how fast it trained (nats);
        ``final_loss``: that over the last tenth; the accuracies on ``validation`` and ``test``.
    """
    seed, steps = config.get("seed", 0), config.get("steps", 200)
    data = split(config.get("train_size", 1000), seed)
    torch.manual_seed(seed)
    width = config.get("width", {"mlp": 64, "conv": 16}[config.get("model", "mlp")])
    model = build(config, width)
    plan = paramz.parametrize_(model, "sp", base=lambda w: build(config, w), base_width=width)
    if config.get("variant") in ("weight-norm-data", "mean-only", "plain-data"):
        weight_norm_init_(model, data["train"][0][:256])
    if config.get("variant") == "plain-data":  # only the init is the paper's, weights are plain
        paramz.unreparametrize_(model)
        plan = paramz.plan_of(model) or plan
    groups = plan.param_groups(
        model,
        config.get("optimizer", "sgd"),
        lr=config["lr"],
        weight_decay=config.get("weight_decay", 0.0),
        no_decay=("vector", "scalar"),
    )
    optimizer = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[
        config.get("optimizer", "sgd")
    ](groups)
    x, y = data["train"]
    draw = torch.Generator().manual_seed(seed)
    losses = []
    for step in range(steps):
        if config.get("decay", False):
            for group in optimizer.param_groups:
                group.setdefault("first_lr", group["lr"])
                group["lr"] = group["first_lr"] * (1 - step / steps)
        picked = torch.randint(len(x), (config.get("batch_size", 64),), generator=draw)
        loss = F.cross_entropy(model(x[picked]), y[picked])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        trial.log(step, loss=losses[-1])
    model.eval()
    with torch.no_grad():
        right = {n: (model(x).argmax(1) == y).float().mean() for n, (x, y) in data.items()}
    # A loss beyond 10, or none, counts as 10: it does not matter how far training diverged.
    finite = [v if v == v and v < 10 else 10.0 for v in losses]
    tail = finite[-max(1, steps // 10) :]
    return {
        "loss": sum(finite) / len(finite),
        "final_loss": sum(tail) / len(tail),
        **{n: right[n].item() for n in ("validation", "test")},
    }
