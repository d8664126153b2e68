"""What K-FAC can precondition: layers whose gradient is a sum of outer products g a^T.

For each kind of layer this file knows its inputs a and the gradients g of its outputs as rows of a
matrix, and the gradients of its parameters as one matrix (outputs, inputs). There are two ways to
treat weights that are shared over the positions of a sequence or an image (Eschenhagen et al. 2023,
arXiv 2311.00636): see `Sharing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramz.anatomy.paths import join
from paramz.anatomy.tensors import owned_parameters, owners_of_parameters
from paramz.optim.blocks import block_sizes

Kind = Literal["linear", "conv2d", "embedding", "gain", "shift"]
# Each position counts as a sample of its own ("expand"), or positions are summed over ("reduce").
Sharing = Literal["expand", "reduce"]


@dataclass(frozen=True, eq=False)
class PreconditionedLayer:
    """Tensors with one block of the Fisher matrix: those of a layer, or a norm's gain or shift.

    Attributes:
        name: the name of the weight, or of the bias if there is no weight.
        module: the layer or norm.
        kind: how its inputs and outputs are read.
        weight: the weight; None where K-FAC trains only the bias.
        bias: the bias that is preconditioned together with the weight.
    """

    name: str
    module: nn.Module
    kind: Kind
    weight: nn.Parameter | None
    bias: nn.Parameter | None = None

    @property
    def tensors(self) -> list[nn.Parameter]:
        """The weight and the bias, as far as they are there."""
        return [p for p in (self.weight, self.bias) if p is not None]


def preconditioned_layers(
    model: nn.Module, parameters: Iterable[nn.Parameter]
) -> list[PreconditionedLayer]:
    """The layers of a model that own the parameters, one for each block of the Fisher matrix.

    Args:
        model: the model.
        parameters: the parameters that K-FAC is to train.

    Raises:
        ValueError: K-FAC has no block for some parameter, or several layers share one.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    >>> [(layer.name, layer.kind) for layer in preconditioned_layers(net, net.parameters())]
    [('0.weight', 'linear'), ('1.weight', 'gain'), ('1.bias', 'shift')]
    """
    wanted = {id(p): p for p in parameters}
    owners = {id(found[0].parameter): found for found in owners_of_parameters(model)}
    names = {key: " = ".join(each.name for each in found) for key, found in owners.items()}
    by_module: dict[nn.Module, tuple[str, dict[str, nn.Parameter]]] = {}
    for path, module, local, parameter in owned_parameters(model):
        if id(parameter) in wanted:
            by_module.setdefault(module, (path, {}))[1][local] = parameter
    found = [
        layer for module, (path, own) in by_module.items() for layer in _layers(path, module, own)
    ]
    claimed = [id(p) for layer in found for p in layer.tensors]
    shared = [names[key] for key in dict.fromkeys(claimed) if claimed.count(key) > 1]
    lost = [
        f"{names.get(key, 'a tensor')} {tuple(p.shape)}"
        + ("" if key in names else " that is not the model's")
        for key, p in wanted.items()
        if key not in claimed
    ]
    if shared or lost:
        raise ValueError(
            f"K-FAC has no block for {', '.join(lost) or 'none'}, and layers share "
            f"{', '.join(shared) or 'none'}. It preconditions Linear, Conv2d (groups=1), "
            "Embedding, LayerNorm and RMSNorm, each with tensors of its own. Give others to AdamW: "
            "matrices, rest = plan.split_groups(model, kfac=dict(lr=...), adamw=dict(lr=...))"
        )
    return found


def _layers(
    path: str, module: nn.Module, own: dict[str, nn.Parameter]
) -> list[PreconditionedLayer]:
    """What a module with these parameters of its own is for K-FAC; nothing if K-FAC has no rule."""
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None and bias is None:
        return []
    name, shift = join(path, "bias" if weight is None else "weight"), join(path, "bias")
    if isinstance(module, nn.Linear):
        return [PreconditionedLayer(name, module, "linear", weight, bias)]
    if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
        return [PreconditionedLayer(name, module, "conv2d", weight, bias)]
    if isinstance(module, nn.Embedding) and not module.sparse:
        return [PreconditionedLayer(name, module, "embedding", weight)]
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        gain = [] if weight is None else [PreconditionedLayer(name, module, "gain", weight)]
        if bias is None:
            return gain
        return [*gain, PreconditionedLayer(shift, module, "shift", None, bias)]
    return []


def sizes(layer: PreconditionedLayer) -> tuple[int | None, int]:
    """The numbers of inputs and outputs of a layer; a bias adds an input, norms have none.

    >>> net = nn.Conv2d(2, 5, 3)
    >>> sizes(preconditioned_layers(net, net.parameters())[0])
    (19, 5)
    """
    first = layer.tensors[0]
    if layer.kind in ("gain", "shift"):
        return None, first.numel()
    if layer.kind == "embedding":
        return first.shape[0], first.shape[1]
    wide = 0 if layer.weight is None else layer.weight[0].numel()
    return wide + (layer.bias is not None), first.shape[0]


def inputs(
    layer: PreconditionedLayer, x: Tensor, sharing: Sharing, block_size: int | None
) -> tuple[Tensor | None, int]:
    """The sum of a a^T over the rows a of inputs, and the number of rows.

    The sum is cut into blocks; that of an embedding is diagonal, and its diagonal is returned. A
    bias is the weight of an input that is always one. Norms have no factor of inputs: None.

    Args:
        layer: the layer.
        x: its input in one forward pass.
        sharing: how positions are treated.
        block_size: the largest block; None for one block.
    """
    if layer.kind in ("gain", "shift"):
        return None, 1
    if layer.kind == "embedding":
        assert isinstance(layer.module, nn.Embedding)
        ids = x.flatten()
        counts = torch.bincount(ids, minlength=layer.module.num_embeddings)
        return counts.to(factor_dtype(layer)), len(ids)
    rows = _patches(layer.module, x) if isinstance(layer.module, nn.Conv2d) else x
    rows = rows.to(factor_dtype(layer))
    rows = rows.flatten(0, -2) if sharing == "expand" else _per_datum(rows).mean(1)
    if layer.weight is None:
        rows = rows.new_ones(len(rows), 1)
    elif layer.bias is not None:
        rows = F.pad(rows, (0, 1), value=1.0)
    return _products(rows, block_size), len(rows)


def outputs(
    layer: PreconditionedLayer, g: Tensor, x: Tensor, sharing: Sharing, block_size: int | None
) -> Tensor:
    """The sum of g g^T over the rows g of output gradients, in blocks.

    For a norm g is the gradient of its gain or shift.

    Args:
        layer: the layer.
        g: the gradient of its output.
        x: its input in the same forward pass.
        sharing: how positions are treated.
        block_size: the largest block; None for one block.
    """
    g = g.to(factor_dtype(layer))
    if layer.kind == "conv2d":
        g = g.flatten(2).transpose(1, 2)
    elif layer.kind in ("gain", "shift"):
        shape = layer.module.normalized_shape
        assert isinstance(shape, Sequence)
        if layer.kind == "gain":
            g = g * _normalised(layer.module, x.to(factor_dtype(layer)), list(shape))
        g = g.flatten(g.ndim - len(shape))
    rows = g.flatten(0, -2) if sharing == "expand" else _per_datum(g).sum(1)
    return _products(rows, block_size)


def multiply(a: Tensor | None, b: Tensor | None, matrix: Tensor) -> Tensor:
    """B^-1 G A^-1 for a gradient G, (out, in).

    Args:
        a: the inverse of A in blocks, (number, size, size), or its diagonal, (in,); None for 1.
        b: the inverse of B in blocks; None for 1.
        matrix: G.
    """
    high, wide = matrix.shape
    if b is not None:
        rows = _padded(matrix.T, b).T.reshape(len(b), -1, wide)
        matrix = (b @ rows).reshape(-1, wide)[:high]
    if a is None:
        return matrix
    if a.ndim == 1:
        return matrix * a
    columns = _padded(matrix, a).reshape(high, len(a), -1).transpose(0, 1)
    return (columns @ a).transpose(0, 1).reshape(high, -1)[:, :wide]


def gradient(layer: PreconditionedLayer) -> Tensor | None:
    """The gradients of a layer's tensors as one matrix (out, in), in the dtype of its factors.

    Returns:
        None if the tensors have no gradients.

    Raises:
        RuntimeError: one has a gradient and the other has none: they share the factor of inputs.
    """
    without = [p for p in layer.tensors if p.grad is None]
    if len(without) == len(layer.tensors):
        return None
    if without:
        raise RuntimeError(
            f"{layer.name} and its bias move together, and one of them has no gradient: was it "
            "frozen? Make the groups and K-FAC anew after freezing"
        )
    columns = [_matrix(layer, p.grad) for p in layer.tensors if p.grad is not None]
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def updates(layer: PreconditionedLayer, matrix: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """The inverse of `gradient`: a matrix (out, in) as updates in the shapes of the tensors."""
    if layer.kind == "embedding":
        matrix = matrix.T
    if layer.weight is None or layer.bias is None:
        only = layer.tensors[0]
        return [(only, matrix.reshape(only.shape).to(only.dtype))]
    parts = ((layer.weight, matrix[:, :-1]), (layer.bias, matrix[:, -1]))
    return [(p, part.reshape(p.shape).to(p.dtype)) for p, part in parts]


def _matrix(layer: PreconditionedLayer, grad: Tensor) -> Tensor:
    grad = grad.to(factor_dtype(layer))
    if layer.kind == "embedding":
        return grad.T
    if layer.kind in ("gain", "shift") or grad.ndim == 1:
        return grad.reshape(-1, 1)
    return grad.flatten(1)


def factor_dtype(layer: PreconditionedLayer) -> torch.dtype:
    """The dtype of a layer's factors: float32 at least, because they are inverted."""
    return torch.promote_types(layer.tensors[0].dtype, torch.float32)


def _padded(rows: Tensor, inverse: Tensor) -> Tensor:
    """The rows with columns of zeros added, up to the size of an inverse in blocks."""
    missing = inverse.shape[0] * inverse.shape[1] - rows.shape[1]
    return F.pad(rows, (0, missing)) if missing else rows


def _products(rows: Tensor, block_size: int | None) -> Tensor:
    """The blocks of X^T X, (number, size, size)."""
    number, size = block_sizes(rows.shape[1], block_size)
    if number * size > rows.shape[1]:
        rows = F.pad(rows, (0, number * size - rows.shape[1]))
    parts = rows.reshape(len(rows), number, size).transpose(0, 1)
    return parts.transpose(1, 2) @ parts


def _per_datum(rows: Tensor) -> Tensor:
    """(N, ..., d) as (N, positions, d), with one position if there are none."""
    return rows.reshape(len(rows), -1, rows.shape[-1])


def _patches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """(N, channels, height, width) as (N, positions, channels * kernel area)."""
    if x.ndim == 3:
        x = x[None]
    if isinstance(conv.padding, str):
        x, padding = F.pad(x, conv._reversed_padding_repeated_twice), (0, 0)
    else:
        padding = conv.padding  # type: ignore[assignment]
    unfolded = F.unfold(x, conv.kernel_size, conv.dilation, padding, conv.stride)
    return unfolded.transpose(1, 2)


def _normalised(norm: nn.Module, x: Tensor, shape: list[int]) -> Tensor:
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(x, shape, eps=norm.eps)
    assert isinstance(norm, nn.RMSNorm)
    return F.rms_norm(x, shape, eps=norm.eps)
