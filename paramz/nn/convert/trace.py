"""What a model computes, as a list of operations: it runs once, unchanged, and is recorded.

Each layer that u-muP knows is one operation; between them every torch function is recorded with the
tensors that it took and made. The record is only read: the model keeps its own code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from paramz.anatomy import names
from paramz.anatomy.runs import in_eval_mode

ATTENTION = "scaled_dot_product_attention"
_TURNED_AROUND = ("T", "mT", "H", "mH")  # tensors' attributes
_ATTENTION_INPUTS = ("query", "key", "value", "attn_mask")


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: ``linear``, ``conv``, ``multihead``, ``embedding``, ``norm``, ``gelu``, ``relu``,
            ``silu``, ``parameter``, or the name of a torch function, with ``F.`` in front of
            ``linear`` and ``norm``, which are no layers with a place for factors.
        path: of the layer, or of the module whose code called the function, or of the parameter.
        inputs: numbers of the tensors that it took, in order; None for tensors that come neither
            from the model's input nor from a parameter (masks, positions).
        output: number of the tensor that it made.
        facts: what the rules need to know of the call.
    """

    name: str
    path: str
    inputs: tuple[int | None, ...]
    output: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Factor:
    """A tensor that does not come from the model's input, and by which one that does is multiplied.

    Attributes:
        mask: its entries are 0 or 1.
        square: the mean of their squares; None if it is not known.
    """

    mask: bool
    square: float | None


def layer_kind(module: nn.Module) -> str | None:
    """Which kind of layer that u-muP knows a module is; None for any other module.

    >>> layer_kind(nn.Linear(2, 2)), layer_kind(nn.Conv2d(1, 1, 1)), layer_kind(nn.LSTM(1, 1))
    ('linear', 'conv', None)
    """
    kind = type(module).__name__
    if type(module).__module__.startswith("paramz."):
        return None
    if type(module).forward is nn.Linear.forward or kind == names.TRANSPOSED_LINEAR:
        return "linear"
    if type(module).forward in (nn.Conv1d.forward, nn.Conv2d.forward):
        return "conv"
    if type(module).forward is nn.MultiheadAttention.forward:
        return "multihead"
    if type(module).forward is nn.Embedding.forward:
        return "embedding"
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) or kind.endswith(names.RMS_NORM):
        return "norm"
    return names.ACTIVATIONS.get(kind)


def trace(model: nn.Module, example: Any) -> list[Op]:
    """The operations of one forward pass, in order.

    Args:
        model: in any mode; it runs in eval mode, without gradients.
        example: a tensor or a mapping of keyword arguments for the model, or a pair whose first
            part is one of these.
    """
    inputs = example[0] if isinstance(example, tuple | list) else example
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, inputs)
    with torch.no_grad(), in_eval_mode(model), _watching(model) as recorder, recorder:
        if isinstance(inputs, Mapping):
            model(**inputs)
        else:
            model(inputs)
    return recorder.ops


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.path: list[str] = []
        self.inside = 0
        self._number: dict[int, int] = {}
        self._kept: list[Tensor] = []  # an id is unique only as long as its tensor lives
        for name, parameter in model.named_parameters():
            self.record("parameter", name, (), [parameter], {"axes": parameter.dim()})

    def record(
        self, name: str, path: str, inputs: Any, outputs: list[Tensor], facts: Mapping[str, Any]
    ) -> None:
        numbers = tuple(self._number.get(id(x)) for x in inputs)
        for out in outputs:
            self._kept.append(out)
            self._number[id(out)] = len(self._kept)
            self.ops.append(Op(name, path, numbers, len(self._kept), facts))

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.__name__
        if name == "__get__" and getattr(func.__self__, "__name__", "") in _TURNED_AROUND:
            name = "transpose"
        if self.inside or name in ("__get__", "__set__"):
            return out
        inputs = _tensors((args, kwargs))
        if name == ATTENTION:
            given = dict(zip(_ATTENTION_INPUTS, args, strict=False)) | kwargs
            inputs = _tensors([given.get(each) for each in _ATTENTION_INPUTS])
        changed = [args[0]] if name == "__setitem__" else _tensors(out)
        if any(id(x) in self._number for x in inputs) and changed:
            path = self.path[-1] if self.path else ""
            name = f"F.{name}" if name in ("linear", "norm") else name
            self.record(name, path, inputs, changed, _facts(name, args, kwargs, inputs))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _facts(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: list[Tensor]
) -> dict[str, Any]:
    if name == ATTENTION:
        d_head, length = inputs[0].shape[-1], inputs[1].shape[-2]
        mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
        causal = bool(kwargs.get("is_causal", args[5] if len(args) > 5 else False))
        return {
            "scale": kwargs.get("scale") or d_head**-0.5,
            "d_head": d_head,
            "length": length,
            "causal": causal or (mask is not None and _hides_the_future(mask)),
        }
    return {"empty": [x.numel() == 0 for x in inputs], "factors": [_factor(x) for x in inputs]}


def _multihead_facts(module: Any, call: Mapping[str, Any], inputs: list[Tensor]) -> dict[str, Any]:
    odd = {
        "add_bias_kv": module.bias_k is not None,
        "add_zero_attn": module.add_zero_attn,
        "kdim or vdim": not module._qkv_same_embed_dim,
    }
    key, mask = inputs[1], call.get("attn_mask")
    if any(odd.values()):
        return {"name": f"MultiheadAttention with {' and '.join(k for k, v in odd.items() if v)}"}
    if mask is not None and mask.dtype == torch.bool:
        # MultiheadAttention's mask is True where a key is hidden, the other one's where it is seen.
        mask = ~mask
    return {
        "d_head": module.head_dim,
        "length": key.shape[1] if module.batch_first and key.dim() == 3 else key.shape[0],
        "causal": bool(call.get("is_causal")) or (mask is not None and _hides_the_future(mask)),
    }


def _factor(x: Tensor) -> Factor | None:
    """What is known of a tensor that may be a mask, or hold cosines or sines; None for others."""
    if x.is_meta:
        return Factor(mask=False, square=None)
    if not x.is_floating_point() or not bool((x.abs() <= 1).all()):
        return None
    mask = bool(((x == 0) | (x == 1)).all())
    return Factor(mask, float(x.double().square().mean()) if x.numel() else None)


def _hides_the_future(mask: Tensor) -> bool:
    """Whether most queries do not see the next key, where both are no padding.

    A key of padding is hidden from its own query, too; or that query sees all keys.
    """
    if mask.is_meta:
        return False
    seen = mask if mask.dtype == torch.bool else mask > -1e3
    if seen.shape[-2] != seen.shape[-1]:
        return seen.shape[-2] > 1 and bool((~seen[..., 0, -1] & seen[..., -1, -1]).all())
    counted = seen.diagonal(dim1=-2, dim2=-1)[..., 1:] & ~seen.all(-1)[..., :-1]
    hidden = counted & ~seen.diagonal(1, -2, -1)
    return bool(2 * hidden.sum() > counted.sum())


@contextmanager
def _watching(model: nn.Module) -> Iterator[_Recorder]:
    recorder = _Recorder(model)
    handles = []

    def enter(path: str, kind: str | None) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            recorder.path.append(path)
            recorder.inside += kind is not None

        return hook

    def leave(path: str, kind: str | None) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
            recorder.path.pop()
            if kind is None:
                return
            recorder.inside -= 1
            if recorder.inside:
                return
            if kind == "multihead":
                call = inspect.signature(module.forward).bind(*args, **kwargs).arguments
                inputs = [call[name] for name in ("query", "key", "value")]
                facts = _multihead_facts(module, call, inputs)
                recorder.record(facts.pop("name", kind), path, inputs, [out[0]], facts)
            else:
                recorder.record(kind, path, args[:1] or list(kwargs.values())[:1], [out], {})

        return hook

    for path, module in model.named_modules():
        kind = layer_kind(module)
        handles.append(module.register_forward_pre_hook(enter(path, kind)))
        handles.append(module.register_forward_hook(leave(path, kind), with_kwargs=True))
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
