"""Put a model's hidden linear layers into FP8."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from paramz.anatomy.sound import require_model
from paramz.nn.convert.swap import plain_linear, replace_layer_
from paramz.nn.convert.trace import layer_kind
from paramz.nn.fp8 import Fp8
from paramz.nn.layers.linear import Conv1D, Linear, Readout


def fp8_(model: nn.Module, fp8: Fp8 | None = None, *, skip: Sequence[str] = ()) -> list[str]:
    """Let every hidden linear layer multiply in FP8, in place; readouts keep their precision.

    Works on unit-scaled models, and on plain ones, whose linear layers are replaced by layers of
    `paramz.nn` that compute the same. Plain models are for comparison: tensors are cast without
    scales of their own, and those of a plain model do not fit the range of the formats. The
    projections of a plain ``nn.MultiheadAttention``, which it multiplies itself, and the input
    projections of `paramz.nn.MultiheadAttention` keep their precision.

    Args:
        model: any model.
        fp8: the formats; by default E4M3 forward, E5M2 backward, simulated.
        skip: paths of layers to leave alone, such as a plain model's readout.

    Returns:
        the paths of the layers that are in FP8 now.

    Raises:
        ValueError: the model is a single plain layer.

    >>> fp8_(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), skip=["2"])
    ['0']
    """
    require_model(model)
    changed = []
    modules = list(model.named_modules())
    attention = [module for _, module in modules if layer_kind(module) == "multihead"]
    unread = {id(child) for module in attention for child in module.children()}
    for path, module in modules:
        if layer_kind(module) == "linear" and path not in skip and id(module) not in unread:
            module = plain_linear(module)
            replace_layer_(model, path, module)
        if isinstance(module, Linear | Conv1D) and not isinstance(module, Readout):
            if path not in skip:
                module.fp8 = fp8 or Fp8()
                changed.append(path)
    return changed
