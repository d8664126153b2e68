"""Fold unit scaling's forward factors into weights, for export and serving."""

from __future__ import annotations

import torch
from torch import nn

from paramz.nn.modules import Conv1D, Linear
from paramz.nn.scale import Scale


def fold_scales_(model: nn.Module) -> None:
    """Fold the forward factors of unit-scaled linear layers into their weights, for export.

    The layers then compute what plain ones with these weights do, so a plain model of the same code
    loads the state_dict (its norms' eps counts for a little more or less).

    Raises:
        ValueError: a weight is shared with another layer; nothing is changed then.
    """
    layers = [m for m in model.modules() if isinstance(m, Linear | Conv1D)]
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(path)
    for layer in layers:
        shared = owners[id(layer.weight)]
        if len(shared) > 1:
            raise ValueError(
                f"{' and '.join(shared)} share one weight and scale it differently: no plain tied "
                "model computes this. Give the readout its own copy before folding."
            )
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(layer.scale.input * layer.scale.output)
            if layer.bias is not None:
                layer.bias.mul_(layer.scale.output)
            layer.scale = Scale()
