"""The init of the weight normalization paper: outputs of mean 0 and variance 1 on a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paramz.anatomy.paths import join
from paramz.anatomy.sound import require_model
from paramz.plan.on_model import plan_of
from paramz.plan.plan import Plan
from paramz.plan.row import Row
from paramz.reparam.maps.weight_norm import WeightNorm
from paramz.reparam.modules import maps_of, part_name
from paramz.theory.power import Power

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def weight_norm_init_(model: nn.Module, *inputs: Any, std: float | None = 0.05) -> int:
    """Set g and the bias of every weight-normalized linear and conv layer from a batch, in place.

    Salimans and Kingma 2016 (arXiv 1602.07868), section 3: v ~ N(0, 0.05^2); and, where t is
    v x / |v| on a batch, g = 1 / std[t] and b = -mean[t] / std[t] per output, so that the outputs
    have mean 0 and variance 1 on that batch. Layers are initialised in the order in which they are
    called, each on the new outputs of those before it. A layer without bias keeps its mean. A
    plan's factor in a hook on the layer comes after that.

    Call it after `paramz.parametrize_`, which makes v from the weight again where it rescales that.
    Under a plan this is the init of the base, and v and the outputs are larger or smaller by what
    the plan says: under muP the v of hidden layers is 0.05 fan_in^-1/2 (with fan_in as a ratio),
    as its learning rate is for a v that shrinks like the weight; and the readout's outputs are
    fan_in^-1/2.

    Args:
        model: a model with layers under `WeightNorm`.
        *inputs: the arguments to call it with, a batch large enough for a std per output.
        std: the std with which v is drawn, under a plan that at the base; None keeps v as it is.

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
    require_model(model)
    done: dict[nn.Module, str] = {}
    plan = plan_of(model)
    paths = {module: path for path, module in model.named_modules()}

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if module in done:
            return output
        done[module] = paths[module]
        size = 1.0 if plan is None else _output_size(plan, join(paths[module], "weight"))
        return _standardise(module, paths[module], output, size)

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
                factor = 1.0
                if plan is not None:
                    factor = _size(plan, _row(plan, join(paths[layer], part_name("weight", "v"))))
                _tensor(layer, "weight_v").normal_(0.0, std * factor)
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


def _row(plan: Plan, name: str) -> Row:
    row = next((row for row in plan.rows if name in (row.name, *row.aliases)), None)
    if row is None:
        raise ValueError(f"the plan has no row for {name}: was it made for this model?")
    return row


def _size(plan: Plan, row: Row) -> float:
    """By how much a part of a weight is larger at first than that of the base."""
    size = Power() if row.part is None else Power.from_json(row.part.size)
    return (plan.rulebook.weight(row).init_std * size)(row.ratios)


def _output_size(plan: Plan, weight: str) -> float:
    """By how much the outputs of a layer are larger at first than those of the base's."""
    size = _size(plan, _row(plan, part_name(weight, "g")))
    if plan.parametrization.unit_scaled:  # its layers multiply outputs themselves
        whole = _row(plan, part_name(weight, "v"))
        size *= plan.rulebook.weight(whole).multiplier(whole.ratios)
    return size


def _standardise(module: nn.Module, path: str, output: Tensor, wanted: float) -> Tensor:
    """Set g and b so that outputs have a std, and return the layer's output with them."""
    conv = isinstance(module, nn.modules.conv._ConvNd)
    channel = output.dim() - 1
    if isinstance(module, nn.modules.conv._ConvNd):
        channel -= len(module.kernel_size)
    others = [axis for axis in range(output.dim()) if axis != channel]
    shape = [-1 if axis == channel else 1 for axis in range(output.dim())]
    g, bias = _tensor(module, "weight_g"), getattr(module, "bias", None)
    # A unit-scaled layer multiplies its bias, too.
    factor = getattr(getattr(module, "scale", None), "output", 1.0)
    plain = output if bias is None else output - factor * bias.view(shape)
    t = plain / g.reshape(shape)
    size = t.std(others, unbiased=False)
    if not bool((size > 0).all()):
        kind = "conv" if conv else "linear"
        raise ValueError(
            f"{path}: {int((size == 0).sum())} outputs of this {kind} layer are the same all over "
            "the batch, so they cannot have variance 1: give a larger or more varied batch"
        )
    size = size / wanted
    g.copy_((1 / size).view_as(g))
    if bias is None:
        return t / size.view(shape)
    mean = t.mean(others)
    bias.copy_(-mean / (size * factor))
    return (t - mean.view(shape)) / size.view(shape)
