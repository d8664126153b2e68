"""Fold unit scaling's forward factors into weights, for export and serving."""

from __future__ import annotations

import math

import torch
from torch import nn

from paramz.anatomy.sound import require_model
from paramz.anatomy.tensors import owners_of_parameters
from paramz.nn.layers.convolution import Convolution
from paramz.nn.layers.linear import Conv1D, Linear
from paramz.nn.layers.multihead import MultiheadAttention
from paramz.nn.scale import Scale


def fold_scales_(model: nn.Module) -> None:
    """Fold the forward factors of unit-scaled linear layers into their weights, for export.

    The layers then compute what plain layers with these weights do, so a plain model of the same
    code can load the state_dict. `paramz.fold_` does this and one thing more, for models that
    `paramz.parametrize_` has converted: attention modules that keep the factor on their logits in
    an attribute, as those of transformers do, get their own one back. Here they keep u-muP's, which
    `unit_scale_` has set (``Factors.attention``) and which a plain model does not have. (The eps of
    its norms is added to mean squares of another size, so it counts for a little more or less.)

    Raises:
        ValueError: a weight is shared with another layer, or the factor on attention's output
            depends on the number of keys of each call; the model is then as it was.
    """
    require_model(model)
    layers = [m for m in model.modules() if isinstance(m, Linear | Conv1D | Convolution)]
    attentions = [m for m in model.modules() if isinstance(m, MultiheadAttention)]
    scaled = {id(m.weight) for m in layers} | {id(m.in_proj_weight) for m in attentions}
    for owners in owners_of_parameters(model):
        shared: dict[int, str] = {}
        for each in owners:
            shared.setdefault(id(each.module), each.path)  # once, even if it has two paths
        if id(owners[0].parameter) in scaled and len(shared) > 1:
            raise ValueError(
                f"{' and '.join(shared.values())} share one weight and scale it differently: no "
                "plain tied model computes this. Give the readout its own copy before folding."
            )
    if any(m.scaled_by_call for m in attentions):
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
    """Set the logits' factor to torch's 1/sqrt(d_head), with the rest in queries and keys."""
    d_head = layer.embed_dim // layer.num_heads
    missing = math.sqrt(layer.mult * d_head**-0.5)
    rows = zip((missing, missing, 1.0), layer.scales, strict=True)
    for part, (own, scale) in enumerate(rows):
        mine = slice(part * layer.embed_dim, (part + 1) * layer.embed_dim)
        layer.in_proj_weight[mine] *= scale.input * scale.output * own
        if layer.in_proj_bias is not None:
            layer.in_proj_bias[mine] *= scale.output * own
    layer.scales, layer.mult = (Scale(), Scale(), Scale()), math.sqrt(d_head)
