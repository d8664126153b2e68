"""The init of the weight normalization paper: outputs of mean 0 and variance 1 on a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paramz.reparam.maps.weight_norm import WeightNorm
from paramz.reparam.modules import maps_of

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def weight_norm_init_(model: nn.Module, *inputs: Any, std: float | None = 0.05) -> int:
    """Set g and the bias of every weight-normalized linear and conv layer from a batch, in place.

    Salimans and Kingma 2016 (arXiv 1602.07868), section 3: v ~ N(0, 0.05^2); and, where t is
    v x / |v| on a batch, g = 1 / std[t] and b = -mean[t] / std[t] per output, so that the outputs
    have mean 0 and variance 1 on that batch. Layers are initialised in the order in which they are
    called, each on the new outputs of those before it. A layer without bias keeps its mean. A
    plan's factor in a hook on the layer comes after that.

    Under muP leave the readout out, because its first outputs are meant to shrink with width, and
    here they get the size 1: reparametrize only other layers, as by ``where=("input", "hidden")``.

    Args:
        model: a model with layers under `WeightNorm`.
        *inputs: the arguments to call it with, a batch large enough for a std per output.
        std: the std with which v is drawn; None keeps v as it is.

    Returns:
        the number of layers that were initialised.

    Raises:
        ValueError: the model calls no such layer, or an output is the same for the whole batch.

    >>> import paramz
    >>> layer = nn.Linear(3, 2)
    >>> paramz.reparametrize_(layer, WeightNorm())
    >>> x = torch.randn(64, 3)
    >>> weight_norm_init_(layer, x)
    1
    >>> bool((layer(x).std(0, correction=0) - 1).abs().max() < 1e-5)
    True
    """
    done: dict[nn.Module, str] = {}
    paths = {module: path for path, module in model.named_modules()}

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if module in done:
            return output
        done[module] = paths[module]
        return _standardise(module, paths[module], output)

    layers = [
        module
        for module in model.modules()
        if isinstance(module, _LAYERS)
        and isinstance(dict(maps_of(module)).get("weight"), WeightNorm)
    ]
    handles = []
    with torch.no_grad():
        for layer in layers:
            if std is not None:
                _tensor(layer, "weight_v").normal_(0.0, std)
            # Before hooks that multiply what the layer puts out, as a plan's may.
            handles.append(layer.register_forward_hook(hook, prepend=True))
        try:
            model(*inputs)
        finally:
            for handle in handles:
                handle.remove()
    if not done:
        raise ValueError(
            f"no weight-normalized linear or conv layer of this {type(model).__name__} computed "
            "anything: call paramz.reparametrize_(model, paramz.WeightNorm(), where=...) first"
        )
    return len(done)


def _tensor(module: nn.Module, name: str) -> Tensor:
    found = getattr(module, name)
    assert isinstance(found, Tensor)
    return found


def _standardise(module: nn.Module, path: str, output: Tensor) -> Tensor:
    """Set g and b, and return the layer's output with them."""
    conv = isinstance(module, nn.modules.conv._ConvNd)
    channel = output.dim() - 1
    if isinstance(module, nn.modules.conv._ConvNd):
        channel -= len(module.kernel_size)
    others = [axis for axis in range(output.dim()) if axis != channel]
    shape = [-1 if axis == channel else 1 for axis in range(output.dim())]
    g, bias = _tensor(module, "weight_g"), getattr(module, "bias", None)
    plain = output if bias is None else output - bias.view(shape)
    t = plain / g.reshape(shape)
    size = t.std(others, unbiased=False)
    if not bool((size > 0).all()):
        kind = "conv" if conv else "linear"
        raise ValueError(
            f"{path}: {int((size == 0).sum())} outputs of this {kind} layer are the same all over "
            "the batch, so they cannot have variance 1: give a larger or more varied batch"
        )
    g.copy_((1 / size).view_as(g))
    if bias is None:
        return t / size.view(shape)
    mean = t.mean(others)
    bias.copy_(-mean / size)
    return (t - mean.view(shape)) / size.view(shape)
