"""Hooks that measure K-FAC's factors during the forward passes of chosen steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from paramz.optim.blocks import block_sizes
from paramz.optim.kfac.estimate import Estimate
from paramz.optim.kfac.fisher import count, fisher_vectors, predictions
from paramz.optim.kfac.layers import PreconditionedLayer, factor_dtype, inputs, outputs, sizes
from paramz.optim.kfac.plain import require_plain
from paramz.optim.precision import full_precision


class Hook:
    """A forward hook that does nothing in copies of its model, deep or pickled ones.

    Otherwise every deepcopy of a model, such as one for averaged weights, would copy the optimizer
    and its state along, and would measure for that copy.
    """

    def __init__(self, call: Callable[..., Tensor | None] | None) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Tensor | None:
        """Call what the hook was made for; a copy does nothing."""
        return None if self.call is None else self.call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Hook, (None,))


@dataclass
class Sums:
    """What was measured of one layer since the last step, not yet divided by any number.

    Attributes:
        a: the sum of a a^T over inputs; None where the layer has no such factor.
        rows: the number of inputs that were added up.
        b: the sum of g g^T over output gradients.
    """

    a: Tensor | None = None
    rows: int = 0
    b: Tensor | None = None


def empty_sums(layer: PreconditionedLayer, estimate: Estimate) -> Sums:
    """The sums of a layer that was not called."""
    wide, high = sizes(layer)
    like = layer.tensors[0].to(factor_dtype(layer))

    def zeros(size: int) -> Tensor:
        number, each = block_sizes(size, estimate.block_size)
        return like.new_zeros(number, each, each)

    b = None if estimate.inputs_only else zeros(high)
    if wide is None:
        return Sums(None, 0, b)
    return Sums(like.new_zeros(wide) if layer.kind == "embedding" else zeros(wide), 0, b)


# A layer, its input, and where the gradient of its output is to be found in the graph.
_Seen = tuple[PreconditionedLayer, Tensor, GradientEdge | None]


@dataclass
class Measurement:
    """Sums over the forward passes since the last step.

    A forward pass is measured if ``due`` is set, the model is in train mode and gradients are
    enabled; at other times the hooks return at once. The gradients of the model's own likelihood
    are taken right after the forward pass, within the model's forward hook, on the graph that the
    loss will use.

    Attributes:
        model: the model, whose forward pass returns the predictions.
        layers: its layers to be measured.
        estimate: what is measured, and how.
        due: measure the next forward passes.
        seed: of the draws of targets, together with the number of the pass.
        sums: what was measured so far, by layer.
        terms: the number of terms of the loss that were seen so far.
        passes: the number of forward passes that were measured so far.
    """

    model: nn.Module
    layers: list[PreconditionedLayer]
    estimate: Estimate
    due: bool = True
    seed: tuple[int, ...] = (0,)
    sums: dict[PreconditionedLayer, Sums] = field(default_factory=dict)
    terms: int = 0
    passes: int = 0
    _seen: list[_Seen] = field(default_factory=list)
    _inside: bool = False
    _plain: set[nn.Module] = field(default_factory=set)
    _handles: list[Any] = field(default_factory=list)

    def attach(self) -> None:
        """Register the hooks."""
        by_module: dict[nn.Module, list[PreconditionedLayer]] = {}
        for layer in self.layers:
            by_module.setdefault(layer.module, []).append(layer)
        self._handles.append(self.model.register_forward_pre_hook(Hook(self._enter)))
        for module, layers in by_module.items():
            hook = Hook(
                lambda _, args, kwargs, out, layers=layers: self._see(layers, args, kwargs, out)
            )
            # Before other hooks: one that multiplies the output, as a plan's may, is behind the
            # layer, and a gradient behind it is none of what the layer itself puts out.
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True, prepend=True))
        self._handles.append(self.model.register_forward_hook(Hook(self._leave)))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def clear(self) -> None:
        """Forget the sums, for the next step."""
        self.sums, self.terms, self.passes = {}, 0, 0

    def _enter(self, model: nn.Module, args: Any) -> None:
        self._inside = self.due and model.training and torch.is_grad_enabled()
        self._seen = []

    def _see(
        self, layers: list[PreconditionedLayer], args: Any, kwargs: Any, out: Tensor
    ) -> Tensor | None:
        if not self._inside:
            return None
        x = (args[0] if args else next(iter(kwargs.values()))).detach()
        if layers[0].module not in self._plain:
            require_plain(layers[0], x, out)
            self._plain.add(layers[0].module)
        if self.estimate.inputs_only or not out.requires_grad:
            self._seen += [(layer, x, None) for layer in layers]
        elif self.estimate.fisher == "empirical":
            # The loss is a mean over terms, and the gradients of single terms are wanted: so its
            # gradients are multiplied by the number of terms.
            out.register_hook(  # type: ignore[no-untyped-call]
                lambda g: self._add_gradients(layers, x, g, self.terms)
            )
            self._seen += [(layer, x, None) for layer in layers]
        else:
            # The next layer may change the output in place. An edge of the graph stays valid then,
            # except that of a view, whose history is rewritten: hence the copy.
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
            with full_precision(x):
                a, rows = inputs(layer, x, self.estimate.sharing, self.estimate.block_size)
            sums = self.sums.setdefault(layer, Sums())
            sums.a = a if sums.a is None or a is None else sums.a + a
            sums.rows += rows
        self.passes += 1
        if self.estimate.inputs_only:
            return
        found = predictions(output)
        self._refuse_channels(found, seen)
        self.terms += count(found)
        if self.estimate.fisher != "empirical":
            self._send_back(found, seen)

    def _refuse_channels(self, found: Tensor, seen: list[_Seen]) -> None:
        """Refuse logits of a convolution: its classes are axis 1, and the last axis is read."""
        edge = get_gradient_edge(found) if found.requires_grad else None
        for layer, _, own in seen:
            if own == edge and edge is not None and layer.kind == "conv2d":
                if self.estimate.likelihood == "categorical":
                    raise ValueError(
                        f"the predictions {tuple(found.shape)} are those of {layer.name}, a "
                        "Conv2d, whose classes are axis 1, and K-FAC reads the last one: let the "
                        "model return out.movedim(1, -1), and give cross_entropy its "
                        "movedim(-1, 1)"
                    )

    def _send_back(self, found: Tensor, seen: list[_Seen]) -> None:
        """Add the gradients of the model's own likelihood at the outputs of the layers."""
        edges = list(dict.fromkeys(edge for _, _, edge in seen if edge is not None))
        if not edges:
            return
        generator = torch.Generator(found.device)
        generator.manual_seed(hash((*self.seed, self.passes)) % 2**63)
        how = self.estimate
        for v in fisher_vectors(found, how.likelihood, how.fisher, generator):
            # The graph is kept, because the loss will go through it again.
            with full_precision(found):
                grads = torch.autograd.grad(found, edges, v, retain_graph=True, allow_unused=True)
            by_edge = dict(zip(edges, grads, strict=True))
            for layer, x, edge in seen:
                g = by_edge.get(edge) if edge is not None else None
                if g is not None:
                    self._add_gradients([layer], x, g, 1)

    def _add_gradients(
        self, layers: list[PreconditionedLayer], x: Tensor, g: Tensor, scale: int
    ) -> None:
        for layer in layers:
            scaled = g.detach() * scale if scale != 1 else g
            with full_precision(g):
                b = outputs(layer, scaled, x, self.estimate.sharing, self.estimate.block_size)
            sums = self.sums.setdefault(layer, Sums())
            sums.b = b if sums.b is None else sums.b + b
