"""What K-FAC can precondition: layers whose gradient is a sum of outer products g a^T.

For each kind of layer: its inputs and the gradients of its outputs as rows, with one of the two
ways to treat weights that are shared over a sequence or over positions (Eschenhagen et al. 2023,
arXiv 2311.00636), and its parameters' gradients as one matrix of outputs by inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["linear", "conv2d", "embedding", "gain", "shift"]
Sharing = Literal["expand", "reduce"]


@dataclass(frozen=True, eq=False)
class Layer:
    """One block of the Fisher matrix: a weight with or without its bias, or a norm's gain or shift.

    Attributes:
        name: of the main tensor.
        module: the layer.
        kind: how inputs and outputs are read.
        weight: the main tensor; None where only the bias is trained by K-FAC.
        bias: the bias that is preconditioned along with it.
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


def find_layers(model: nn.Module, parameters: Iterable[nn.Parameter]) -> list[Layer]:
    """The blocks of the Fisher matrix that the parameters make.

    Raises:
        ValueError: K-FAC has no block for some parameter, or several layers share one.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    >>> [(layer.name, layer.kind) for layer in find_layers(net, net.parameters())]
    [('0.weight', 'linear'), ('1.weight', 'gain'), ('1.bias', 'shift')]
    """
    wanted = {id(p): p for p in parameters}
    found: list[Layer] = []
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        own = {local: p for local, p in module._parameters.items() if p is not None}
        for local, p in own.items():
            if id(p) in wanted:
                names.setdefault(id(p), []).append(f"{path}.{local}".lstrip("."))
        mine = {local: p for local, p in own.items() if id(p) in wanted}
        found += _blocks(path, module, mine)
    claimed = [id(p) for layer in found for p in layer.tensors]
    shared = [" = ".join(names[key]) for key in set(claimed) if claimed.count(key) > 1]
    lost = [
        f"{' = '.join(names.get(key, ['a tensor']))} {tuple(p.shape)}"
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


def _blocks(path: str, module: nn.Module, own: dict[str, nn.Parameter]) -> list[Layer]:
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None and bias is None:
        return []
    name = f"{path}.{'bias' if weight is None else 'weight'}".lstrip(".")
    if isinstance(module, nn.Linear):
        return [Layer(name, module, "linear", weight, bias)]
    if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
        return [Layer(name, module, "conv2d", weight, bias)]
    if isinstance(module, nn.Embedding) and not module.sparse:
        return [Layer(name, module, "embedding", weight)]
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        gain = [] if weight is None else [Layer(name, module, "gain", weight)]
        shift = f"{path}.bias".lstrip(".")
        return gain if bias is None else [*gain, Layer(shift, module, "shift", None, bias)]
    return []


def sizes(layer: Layer) -> tuple[int | None, int]:
    """The numbers of inputs and outputs, counting a bias's; norms have no inputs.

    >>> net = nn.Conv2d(2, 5, 3)
    >>> sizes(find_layers(net, net.parameters())[0])
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
    layer: Layer, x: Tensor, sharing: Sharing, block_size: int | None
) -> tuple[Tensor | None, int]:
    """The sum of a a^T over rows in `blocks`, of an embedding its diagonal, and the number of rows.

    A bias is the weight of an input that is always one. Norms have no inputs of this kind: None.
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


def outputs(layer: Layer, g: Tensor, x: Tensor, sharing: Sharing, block_size: int | None) -> Tensor:
    """The sum of g g^T over rows in `blocks`, where a norm's g is that of its gain or shift."""
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


def blocks(size: int, block_size: int | None) -> tuple[int, int]:
    """The number and size of the equal blocks on the diagonal of a factor; the last is padded.

    >>> blocks(300, None), blocks(300, 128)
    ((1, 300), (3, 100))
    """
    number = 1 if block_size is None else -(-size // block_size)
    return number, -(-size // number)


def multiply(a: Tensor | None, b: Tensor | None, matrix: Tensor) -> Tensor:
    """B^-1 G A^-1 for G (out, in), with inverses in blocks (number, size, size) or a diagonal A."""
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


def gradient(layer: Layer) -> Tensor | None:
    """The gradients of a layer's tensors as one matrix (out, in), in the dtype of its factors."""
    if any(p.grad is None for p in layer.tensors):
        return None
    columns = [_matrix(layer, p.grad) for p in layer.tensors if p.grad is not None]
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def updates(layer: Layer, matrix: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """A matrix (out, in) as updates in the shapes of a layer's tensors: undoes `gradient`."""
    if layer.kind == "embedding":
        matrix = matrix.T
    if layer.weight is None or layer.bias is None:
        only = layer.tensors[0]
        return [(only, matrix.reshape(only.shape).to(only.dtype))]
    parts = ((layer.weight, matrix[:, :-1]), (layer.bias, matrix[:, -1]))
    return [(p, part.reshape(p.shape).to(p.dtype)) for p, part in parts]


def _matrix(layer: Layer, grad: Tensor) -> Tensor:
    grad = grad.to(factor_dtype(layer))
    if layer.kind == "embedding":
        return grad.T
    if layer.kind in ("gain", "shift") or grad.ndim == 1:
        return grad.reshape(-1, 1)
    return grad.flatten(1)


def factor_dtype(layer: Layer) -> torch.dtype:
    """Factors are float32 at least: they are inverted."""
    return torch.promote_types(layer.tensors[0].dtype, torch.float32)


def _padded(rows: Tensor, inverse: Tensor) -> Tensor:
    """Columns of zeros up to whole blocks."""
    missing = inverse.shape[0] * inverse.shape[1] - rows.shape[1]
    return F.pad(rows, (0, missing)) if missing else rows


def _products(rows: Tensor, block_size: int | None) -> Tensor:
    """The blocks of X^T X, (number, size, size)."""
    number, size = blocks(rows.shape[1], block_size)
    if number * size > rows.shape[1]:
        rows = F.pad(rows, (0, number * size - rows.shape[1]))
    parts = rows.reshape(len(rows), number, size).transpose(0, 1)
    return parts.transpose(1, 2) @ parts


def _per_datum(rows: Tensor) -> Tensor:
    """(N, ..., d) as (N, positions, d); rows without shared positions get one."""
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
