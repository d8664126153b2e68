"""Hooks that measure K-FAC's factors during the forward passes of chosen steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from paramz.optim.kfac.fisher import Fisher, Likelihood, count, fisher_vectors, predictions
from paramz.optim.kfac.layers import (
    Layer,
    Sharing,
    blocks,
    factor_dtype,
    inputs,
    outputs,
    sizes,
)


class Hook:
    """A forward hook that a copy of its model does not inherit: copied or pickled it does nothing.

    Without this, every deepcopy of a model, such as one for averaged weights, would copy the
    optimizer and its state along, and measure for it.
    """

    def __init__(self, call: Callable[..., Tensor | None] | None) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Tensor | None:
        """What the hook was made for, or nothing."""
        return None if self.call is None else self.call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Hook, (None,))


@dataclass
class Sums:
    """What was measured of one layer since the last step, not yet divided."""

    a: Tensor | None = None
    rows: int = 0
    b: Tensor | None = None


def empty_sums(layer: Layer, block_size: int | None, *, has_b: bool) -> Sums:
    """The sums of a layer that saw nothing."""
    wide, high = sizes(layer)
    like = layer.tensors[0].to(factor_dtype(layer))

    def zeros(size: int) -> Tensor:
        number, each = blocks(size, block_size)
        return like.new_zeros(number, each, each)

    b = zeros(high) if has_b else None
    if wide is None:
        return Sums(None, 0, b)
    return Sums(like.new_zeros(wide) if layer.kind == "embedding" else zeros(wide), 0, b)


@dataclass
class Measurement:
    """Sums over the forward passes since the last step.

    A forward pass is measured while ``due`` is set, the model is in train mode and gradients are
    enabled. The gradients of the model's own likelihood are taken right after it, within the
    model's forward hook, on the graph that the loss will use. At other times hooks return at once.
    """

    model: nn.Module
    layers: list[Layer]
    likelihood: Likelihood
    fisher: Fisher
    sharing: Sharing
    block_size: int | None
    inputs_only: bool
    due: bool = True
    seed: tuple[int, ...] = (0,)
    sums: dict[Layer, Sums] = field(default_factory=dict)
    terms: int = 0
    passes: int = 0
    _seen: list[tuple[Layer, Tensor, GradientEdge | None]] = field(default_factory=list)
    _inside: bool = False
    _handles: list[Any] = field(default_factory=list)

    def attach(self) -> None:
        """Register the hooks."""
        by_module: dict[nn.Module, list[Layer]] = {}
        for layer in self.layers:
            by_module.setdefault(layer.module, []).append(layer)
        self._handles.append(self.model.register_forward_pre_hook(Hook(self._enter)))
        for module, layers in by_module.items():
            hook = Hook(
                lambda _, args, kwargs, out, layers=layers: self._see(layers, args, kwargs, out)
            )
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        self._handles.append(self.model.register_forward_hook(Hook(self._leave)))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def clear(self) -> None:
        """Forget the sums."""
        self.sums, self.terms, self.passes = {}, 0, 0

    def _enter(self, model: nn.Module, args: Any) -> None:
        self._inside = self.due and model.training and torch.is_grad_enabled()
        self._seen = []

    def _see(self, layers: list[Layer], args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
        if not self._inside:
            return None
        x = (args[0] if args else next(iter(kwargs.values()))).detach()
        if self.inputs_only or not out.requires_grad:
            self._seen += [(layer, x, None) for layer in layers]
        elif self.fisher == "empirical":
            # The loss is a mean over its terms, so its gradients are those of a term over terms.
            out.register_hook(  # type: ignore[no-untyped-call]
                lambda g: self._add_gradients(layers, x, g, self.terms)
            )
            self._seen += [(layer, x, None) for layer in layers]
        else:
            # What follows may change the output in place. An edge of the graph outlives that, but
            # not that of a view, whose history is rewritten.
            out = out.clone() if out._is_view() else out
            edge = get_gradient_edge(out)
            self._seen += [(layer, x, edge) for layer in layers]
            return out
        return None

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        if not self._inside:
            return
        self._inside = False
        seen, self._seen = self._seen, []
        for layer, x, _ in seen:
            a, rows = inputs(layer, x, self.sharing, self.block_size)
            sums = self.sums.setdefault(layer, Sums())
            sums.a = a if sums.a is None or a is None else sums.a + a
            sums.rows += rows
        self.passes += 1
        if self.inputs_only:
            return
        found = predictions(output)
        self.terms += count(found)
        edges = list(dict.fromkeys(edge for _, _, edge in seen if edge is not None))
        if self.fisher == "empirical" or not edges:
            return
        generator = torch.Generator(found.device)
        generator.manual_seed(hash((*self.seed, self.passes)) % 2**63)
        for v in fisher_vectors(found, self.likelihood, self.fisher, generator):
            # The loss will go through this graph again.
            grads = torch.autograd.grad(found, edges, v, retain_graph=True, allow_unused=True)
            by_edge = dict(zip(edges, grads, strict=True))
            for layer, x, edge in seen:
                g = by_edge.get(edge) if edge is not None else None
                if g is not None:
                    self._add_gradients([layer], x, g, 1)

    def _add_gradients(self, layers: list[Layer], x: Tensor, g: Tensor, scale: int) -> None:
        for layer in layers:
            scaled = g.detach() * scale if scale != 1 else g
            b = outputs(layer, scaled, x, self.sharing, self.block_size)
            sums = self.sums.setdefault(layer, Sums())
            sums.b = b if sums.b is None else sums.b + b
