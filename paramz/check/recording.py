"""Record what the modules of a model put out during a forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from paramz.anatomy.paths import join
from paramz.check.jobs import MODEL


@dataclass
class Record:
    """Outputs by module call, and the RMS of what each module's own update made of them."""

    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)


@contextmanager
def recording(
    model: nn.Module, start: Mapping[str, torch.Tensor] | None = None
) -> Iterator[Record]:
    """Record every module's first output tensor during a forward pass.

    A module called several times is recorded under ``path``, ``path#2``, ... The model's own output
    is recorded under `MODEL`, unless it is that of a module. With ``start`` (an earlier
    state_dict), modules with weights of their own are run once more on the same input with those
    weights, and the difference is their own update.
    """
    record = Record()
    calls: dict[str, int] = {}

    def hook(path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is None or not tensor.is_floating_point() or not tensor.numel():
            return  # no activations: integers, or an expert that no token chose
        calls[path] = calls.get(path, 0) + 1
        name = path if calls[path] == 1 else f"{path}#{calls[path]}"
        record.outputs[name] = tensor.detach()
        own = module._parameters
        if start is not None and any(p is not None for p in own.values()):
            old = {n: start[join(path, n)] for n, p in own.items() if p is not None}
            if type(module) is nn.Linear:
                record.updates[name] = _linear_update(module, old, args[0])
                return
            before = _first_tensor(_rerun(module, old, args, kwargs))
            if before is not None:
                record.updates[name] = rms(tensor - before)

    def model_hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = _main_tensor(output)
        if tensor is not None and not _is_shown(tensor, record):
            calls[MODEL] = calls.get(MODEL, 0) + 1
            name = MODEL if calls[MODEL] == 1 else f"{MODEL}#{calls[MODEL]}"
            record.outputs[name] = tensor.detach()

    handles = [
        module.register_forward_hook(_at(hook, path), with_kwargs=True)
        for path, module in model.named_modules()
        if path
    ]
    handles.append(model.register_forward_hook(model_hook, with_kwargs=True))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _at(hook: Callable[..., None], path: str) -> Callable[..., None]:
    return lambda module, args, kwargs, output: hook(path, module, args, kwargs, output)


def _linear_update(module: nn.Linear, old: Mapping[str, torch.Tensor], x: torch.Tensor) -> float:
    """RMS of (W - W_start) x + (b - b_start), on about 256 rows evenly spread over the batch.

    Half of a check's work would be this if it were taken over all rows.
    """
    rows = x.detach().flatten(0, -2) if x.dim() > 1 else x.detach()[None]
    rows = rows[:: max(1, len(rows) // 256)]
    bias = None if module.bias is None else module.bias.detach() - old["bias"]
    return rms(nn.functional.linear(rows, module.weight.detach() - old["weight"], bias))


def _rerun(module: nn.Module, weights: Mapping[str, torch.Tensor], args: Any, kwargs: Any) -> Any:
    """The module's forward, without its hooks, at other weights."""
    saved = {name: module._parameters[name] for name in weights}
    try:
        for name, weight in weights.items():
            module._parameters[name] = weight  # type: ignore[assignment]
        with torch.no_grad():
            return module.forward(*args, **kwargs)
    finally:
        module._parameters.update(saved)


def _main_tensor(output: Any) -> torch.Tensor | None:
    """What a model predicts: its logits, or the first of its outputs that is not a scalar."""
    if isinstance(output, torch.Tensor):
        output = (output,)
    if isinstance(output, Mapping):
        logits = output.get("logits")
        output = tuple(output.values()) if logits is None else (logits,)
    if not isinstance(output, tuple | list):
        return None
    found = (x for x in output if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim())
    return next(found, None)


def _is_shown(tensor: torch.Tensor, record: Record) -> bool:
    """Whether a recorded output has these values: the same memory, or a copy of the last one."""
    storage = tensor.untyped_storage().data_ptr()
    if any(o.untyped_storage().data_ptr() == storage for o in record.outputs.values()):
        return True
    last = next(reversed(record.outputs.values()), None)
    return (
        last is not None
        and last.numel() == tensor.numel()
        and torch.equal(last.reshape(-1).to(tensor.dtype), tensor.detach().reshape(-1))
    )


def _first_tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((x for x in output if isinstance(x, torch.Tensor)), None)
    return None


def rms(values: torch.Tensor) -> float:
    """The root mean square of all entries."""
    flat = values.detach()
    return float(torch.linalg.vector_norm(flat, dtype=torch.float32)) / math.sqrt(flat.numel())
