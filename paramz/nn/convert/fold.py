"""Fold unit scaling's forward factors into weights, for export and serving."""

from __future__ import annotations

import math

import torch
from torch import nn

from paramz.nn.layers.modules import Conv1D, Conv1d, Conv2d, Linear
from paramz.nn.layers.multihead import MultiheadAttention
from paramz.nn.scale import Scale


def fold_scales_(model: nn.Module) -> None:
    """Fold the forward factors of unit-scaled linear layers into their weights, for export.

    The layers then compute what plain ones with these weights do, so a plain model of the same code
    loads the state_dict (its norms' eps counts for a little more or less).

    Raises:
        ValueError: a weight is shared with another layer, or attention's output is scaled by each
            call; nothing is changed then.
    """
    kinds = Linear | Conv1D | Conv1d | Conv2d
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    attentions = [m for m in model.modules() if isinstance(m, MultiheadAttention)]
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(path)
    for weight in (*(m.weight for m in layers), *(m.in_proj_weight for m in attentions)):
        shared = owners[id(weight)]
        if len(shared) > 1:
            raise ValueError(
                f"{' and '.join(shared)} share one weight and scale it differently: no plain tied "
                "model computes this. Give the readout its own copy before folding."
            )
    if any(m.normalised for m in attentions):
        raise ValueError(
            "a MultiheadAttention whose output is scaled by the number of keys of each call has no "
            "plain form: fold a model that was converted, or give the layer its scale"
        )
    with torch.no_grad():
        for attention in attentions:
            _fold_attention_(attention)
        for layer in layers:
            layer.weight.mul_(layer.scale.input * layer.scale.output)
            if layer.bias is not None:
                layer.bias.mul_(layer.scale.output)
            layer.scale = Scale()


def _fold_attention_(layer: MultiheadAttention) -> None:
    """Its logits get torch's own 1/sqrt(d_head): queries and keys share what is missing."""
    d_head = layer.embed_dim // layer.num_heads
    missing = math.sqrt(layer.mult * d_head**-0.5)
    rows = zip((missing, missing, 1.0), layer.scales, strict=True)
    for part, (own, scale) in enumerate(rows):
        mine = slice(part * layer.embed_dim, (part + 1) * layer.embed_dim)
        layer.in_proj_weight[mine] *= scale.input * scale.output * own
        if layer.in_proj_bias is not None:
            layer.in_proj_bias[mine] *= scale.output * own
    layer.scales, layer.mult = (Scale(), Scale(), Scale()), math.sqrt(d_head)
