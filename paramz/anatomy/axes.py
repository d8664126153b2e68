"""Which axes of a parameter are fan_in and fan_out: known from the module that owns it.

Axes come from the module's type, never from their position: torch stores Linear as (out, in),
Embedding as (in, out), Hugging Face's Conv1D as (in, out), expert stacks as (expert, out, in).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.bare_experts import bare_parts, count_bare


@dataclass(frozen=True, slots=True)
class Axes:
    """Axis numbers of a tensor. An axis in neither list (kernel size, expert index) is fixed.

    Attributes:
        fan_in: axes that are summed over when the tensor is applied.
        fan_out: axes that the result has.
        vector: True for tensors applied entry by entry (biases, gains, depthwise filters).
    """

    fan_in: tuple[int, ...] = ()
    fan_out: tuple[int, ...] = ()
    vector: bool = False


OUT_IN = Axes(fan_in=(1,), fan_out=(0,))
IN_OUT = Axes(fan_in=(0,), fan_out=(1,))
STACK_OUT_IN = Axes(fan_in=(2,), fan_out=(1,))
STACK_IN_OUT = Axes(fan_in=(1,), fan_out=(2,))

_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
    nn.PReLU,
)


def axes_of(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    """The axes of the parameter ``name`` of ``module``; None when the type does not tell.

    >>> axes_of(nn.Embedding(10, 4), "weight", (10, 4))
    Axes(fan_in=(0,), fan_out=(1,), vector=False)
    """
    if len(shape) <= 1 or isinstance(module, _NORMS):
        return _entrywise(shape)
    declared = getattr(type(module), "AXES", {}).get(name)
    if isinstance(declared, Axes):
        return declared  # a layer of paramz says it itself
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return IN_OUT
    if _is_conv(module):
        # Others are the gain of a standardised convolution: (out, 1, 1, 1).
        return _conv(module) if is_kernel(module, name, shape) else _entrywise(shape)
    if isinstance(module, nn.MultiheadAttention) and len(shape) == 3:
        return _entrywise(shape)  # bias_k, bias_v
    if isinstance(module, nn.Linear | nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention):
        return OUT_IN
    if isinstance(module, nn.Bilinear):
        return Axes(fan_in=(1, 2), fan_out=(0,))
    return (
        _bare_expert(module, name)
        or _huggingface(module, name, shape)
        or _geometric(module, name, shape)
        or _by_name(name, shape)
    )


def _entrywise(shape: tuple[int, ...]) -> Axes:
    return Axes(fan_out=tuple(range(len(shape))), vector=True)


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def _conv(module: Any) -> Axes:
    matrix = IN_OUT if module.transposed else OUT_IN
    if module.groups > 1 and module.groups == module.in_channels:
        # Depthwise: one filter per channel, or several, which a transposed one has in axis 1.
        return Axes(fan_out=(0, 1) if module.transposed else (0,), vector=True)
    return matrix


def is_kernel(module: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is the kernel of a convolution.

    >>> is_kernel(nn.Conv1d(1, 4, 1), "weight", (4, 1, 1)), is_kernel(nn.Linear(2, 2), "weight", ())
    (True, False)
    """
    return _is_conv(module) and (name == "weight" or sum(size > 1 for size in shape) > 1)


def convolved(axes: Axes, growing: Collection[int], *, transposed: bool) -> Axes:
    """The axes of a convolution's weight, by which of them grow.

    A kernel as long as width sums over as many places, as the filters of a text classifier over all
    of an embedding, (filters, 1, words, d); a transposed one makes as many. And as many groups as
    channels are no filters for each channel where channels grow and groups do not.

    Args:
        axes: as `axes_of` has them, for which sizes of kernels stay.
        growing: the axes that grow.
        transposed: it is one of a transposed convolution.

    >>> convolved(OUT_IN, {0, 3}, transposed=False)
    Axes(fan_in=(1, 3), fan_out=(0,), vector=False)
    """
    if axes.vector and {0, 1} <= set(growing):
        axes = IN_OUT if transposed else OUT_IN
    kernel = tuple(sorted(axis for axis in growing if axis > 1))
    if not kernel:
        return axes
    if transposed:
        return replace(axes, fan_out=axes.fan_out + kernel)
    return Axes(fan_in=axes.fan_in + kernel, fan_out=axes.fan_out)


def _huggingface(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    """Types that transformers defines itself, recognised without importing it."""
    kind = type(module).__name__
    if kind == names.TRANSPOSED_LINEAR and len(shape) == 2:
        return IN_OUT
    if len(shape) == 3 and isinstance(getattr(module, "is_transposed", None), bool):
        return STACK_IN_OUT if module.is_transposed else STACK_OUT_IN  # its expert stacks
    if len(shape) == 2 and name == "weight" and kind.endswith(names.ROUTER_CLASSES):
        return OUT_IN
    return None


def _bare_expert(module: nn.Module, name: str) -> Axes | None:
    """A bare router, or a bare stack of experts: those of each head below each other, if any."""
    count = count_bare(module)
    if count is None or name not in (parts := bare_parts(module, count)):
        return None
    kind, heads = parts[name]
    if kind == "router":
        return OUT_IN
    if heads == 1:
        return STACK_IN_OUT
    if name in names.BARE_LAST_MAPS:
        return Axes(fan_in=(0, 1), fan_out=(2,))
    return Axes(fan_in=(1,), fan_out=(0, 2))


def _geometric(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    """PyTorch Geometric's own linear layer, and the vectors with which its attention weighs."""
    own = vars(module)
    sizes = tuple(own.get(n) for n in ("out_channels", "in_channels"))
    if type(module).__name__ == "Linear" and name == "weight" and shape == sizes:
        return OUT_IN
    if name in names.ATTENTION_VECTORS and len(shape) == 3 and shape[0] == 1:
        return Axes(fan_in=(2,), fan_out=(1,))  # (1, heads, channels), summed over channels
    return None


def _by_name(name: str, shape: tuple[int, ...]) -> Axes | None:
    """Bare parameters whose name or shape leaves no doubt."""
    last = len(shape) - 1
    if name in names.TABLES:
        return Axes(fan_in=(last - 1,), fan_out=(last,))
    if name.endswith("bias"):
        return _entrywise(shape)  # one bias per expert: (experts, d)
    if name in names.ENTRYWISE:
        return _entrywise(shape)
    if shape[last] != 1 and all(size == 1 for size in shape[:last]):
        return _entrywise(shape)  # class tokens: (1, 1, d)
    return None
