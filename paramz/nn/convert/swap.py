"""The unit-scaled layer that takes the place of a plain one and shares its parameters."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paramz.anatomy import names
from paramz.anatomy.paths import join, split
from paramz.nn.convert.atoms import OUTPUT_PROJECTION, PROJECTIONS
from paramz.nn.convert.factors import Factors
from paramz.nn.convert.trace import layer_kind
from paramz.nn.layers.convolution import Conv1d, Conv2d
from paramz.nn.layers.linear import Conv1D, Linear, Readout
from paramz.nn.layers.modules import Embedding, LayerNorm, RMSNorm
from paramz.nn.layers.multihead import MultiheadAttention
from paramz.nn.residual import Alphas
from paramz.nn.scale import Scale


def unit_scaled_layer(path: str, module: Any, factors: Factors, alphas: Alphas) -> nn.Module | None:
    """The unit-scaled layer that shares a plain layer's parameters; None for an activation.

    Args:
        path: of the layer.
        module: the layer.
        factors: of the model.
        alphas: u-muP's hyperparameters.

    Raises:
        ValueError: the layer is called a norm and computes something else.
    """
    kind = layer_kind(module)
    new: Any
    if kind == "linear":
        new = _linear(module, factors.linear.get(path, Scale()), path in factors.readouts)
    elif kind == "conv":
        new = _conv(module, factors.linear.get(path, Scale()))
    elif kind == "multihead":
        new = _multihead(path, module, factors, alphas)
    elif kind == "embedding":
        new = Embedding(
            module.num_embeddings,
            module.embedding_dim,
            module.padding_idx,
            module.max_norm,
            module.norm_type,
            module.scale_grad_by_freq,
            module.sparse,
            device="meta",
        )
    elif kind == "norm":
        new = _norm(path, module)
        new.grad_scale, eps_factor = factors.norms.get(path, (1.0, 1.0))
        if new.eps is not None:
            new.eps *= eps_factor
    else:
        return None
    return _in_its_place(new, module)


def replace_layer_(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put a layer into a model in place of the one at a path.

    Raises:
        ValueError: the layer there is the model itself.
    """
    if not path:
        raise ValueError(
            f"this {type(model).__name__} is a single layer, which cannot be replaced inside "
            "itself: wrap it, as in nn.Sequential(layer)"
        )
    parent, name = split(path)
    setattr(model.get_submodule(parent), name, new)


def plain_linear(module: nn.Module) -> nn.Module:
    """A layer of `paramz.nn` that shares a plain linear layer's parameters and does the same."""
    return _in_its_place(_linear(module, Scale(), readout=False), module)


def _in_its_place(new: nn.Module, module: nn.Module) -> nn.Module:
    """A new layer with what the plain one has: parameters, mode, and hooks, as of a plan."""
    new._parameters.update(module._parameters)
    hooks = {name: held for name, held in vars(module).items() if "_hooks" in name}
    vars(new).update(hooks)
    return new.train(module.training)


def _conv(module: Any, scale: Scale) -> nn.Module:
    kind = Conv1d if isinstance(module, nn.Conv1d) else Conv2d
    return kind(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.bias is not None,
        module.padding_mode,
        scale=scale,
        device="meta",
    )


def _multihead(path: str, module: Any, factors: Factors, alphas: Alphas) -> nn.Module:
    query, key, value = (factors.linear.get(join(path, n), Scale()) for n in PROJECTIONS)
    return MultiheadAttention(
        module.embed_dim,
        module.num_heads,
        module.dropout,
        module.in_proj_bias is not None,
        batch_first=module.batch_first,
        mult=alphas.attn_softmax,
        scales=(query, key, value),
        scale=factors.linear.get(join(path, OUTPUT_PROJECTION), Scale()),
        device="meta",
    )


def _linear(module: Any, scale: Scale, readout: bool) -> nn.Module:
    fan_out, fan_in = module.weight.shape
    if not isinstance(module, nn.Linear):  # transformers' Conv1D, whose weight is (in, out)
        return Conv1D(fan_out, fan_in, scale=scale, device="meta")
    kind = Readout if readout else Linear
    return kind(fan_in, fan_out, module.bias is not None, scale=scale, device="meta")


def _norm(path: str, module: Any) -> nn.Module:
    plain = next((kind for kind in (nn.LayerNorm, nn.RMSNorm) if isinstance(module, kind)), None)
    if plain is not None and type(module).forward is not plain.forward:
        if not _computes(module, plain.forward):
            raise ValueError(
                f"{path}: {type(module).__name__} has a forward of its own, which does not compute "
                f"what nn.{plain.__name__} does: u-muP has no rule for it"
            )
    if isinstance(module, nn.LayerNorm):
        shape, affine = module.normalized_shape, module.weight is not None
        bias = module.bias is not None
        return LayerNorm(shape, module.eps, affine, bias, device="meta")
    if isinstance(module, nn.RMSNorm):
        affine = module.weight is not None
        return RMSNorm(module.normalized_shape, module.eps, affine, device="meta")
    eps = next((getattr(module, n) for n in names.NORM_EPSILONS if hasattr(module, n)), None)
    weight = module._parameters.get("weight")

    def rms_norm(own: Any, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, weight.shape, own.weight, eps)

    if eps is None or weight is None or weight.dim() != 1 or not _computes(module, rms_norm):
        raise ValueError(
            f"{path}: {type(module).__name__} is called an RMS norm and does not compute "
            "weight * x / sqrt(mean(x^2) + eps): u-muP has no rule for what it does"
        )
    return RMSNorm(weight.shape, eps, device="meta")


def _computes(module: Any, function: Callable[[Any, Tensor], Tensor]) -> bool:
    """Whether a norm computes a function of itself and its input, whatever its gains are."""
    draw = torch.Generator().manual_seed(0)
    tested = copy.deepcopy(module)
    tested._forward_hooks, tested._forward_pre_hooks = OrderedDict(), OrderedDict()
    if tested.weight is None:
        kind, shape = torch.empty(()), module.normalized_shape
    else:
        if tested.weight.is_meta:
            tested.to_empty(device="cpu")
        kind, shape = tested.weight, tested.weight.shape
    x = torch.randn(4, *shape, generator=draw).to(kind)
    with torch.no_grad():
        for parameter in tested.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
        try:
            return torch.allclose(tested(x), function(tested, x), rtol=1e-2, atol=1e-2)
        except (RuntimeError, ValueError, IndexError, TypeError):
            # It wants axes that x does not have, or more than x, as norms with a condition do.
            return False
