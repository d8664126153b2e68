"""Certified bounds: how far a network's output can move, and how far an input may."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from paramz.anatomy.paths import join
from paramz.reparam.layers.sandwich import Sandwich
from paramz.reparam.layers.sll import SLL

# Modules whose bound is 1, some of them under the conditions that `lipschitz_bound` checks.
_ONE = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Softplus,
    nn.ELU,
    nn.Identity,
    nn.Flatten,
    nn.Dropout,
    SLL,
    Sandwich,
)


def lipschitz_bound(model: nn.Module) -> float:
    """An upper bound of |f(x) - f(y)| / |x - y| (2-norms) for a chain of layers.

    It is the product of the layers' bounds (Szegedy et al. 2014, arXiv 1312.6199, section 4.3).
    That of a linear layer is the largest singular value of its weight, taken in double precision,
    however the weight is computed; that of `SLL`, `Sandwich` and common activations is 1. The
    product is tight only if the same inputs attain the bounds of all layers, as in networks of
    nearly orthogonal layers.

    Args:
        model: one of these layers, or nn.Sequential of them. Dropout must be in eval mode.

    Raises:
        ValueError: no bound is known for one of the modules, or one has a forward of its own class
            or a hook, as a plan's factor may be; the message names it.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([3.0, 1.0])))
    >>> lipschitz_bound(nn.Sequential(layer, nn.ReLU(), layer))
    9.0
    """
    bound = 1.0
    for path, module in _layers(model, ""):
        _refuse_hooks(path, module)
        if type(module).forward is nn.Linear.forward:
            with torch.no_grad():
                bound *= float(torch.linalg.matrix_norm(module.weight.double(), 2))
        elif (
            not any(type(module).forward is kind.forward for kind in _ONE)
            or (isinstance(module, nn.Dropout) and module.training)
            or (isinstance(module, nn.LeakyReLU) and abs(module.negative_slope) > 1)
            or (isinstance(module, nn.ELU) and abs(module.alpha) > 1)
        ):
            raise ValueError(
                f"no Lipschitz bound is known for {path or 'the model'}, {module}: linear layers, "
                f"{', '.join(kind.__name__ for kind in _ONE)} (dropout in eval mode, slopes up to "
                "1) and nn.Sequential of them have one"
            )
    return bound


def certified_radius(logits: Tensor, bound: float) -> Tensor:
    """How far an input may move (2-norm) before its class can change: margin / (sqrt(2) bound).

    Tsuzuku, Sato and Sugiyama 2018 (arXiv 1802.04034), proposition 1.

    Args:
        logits: (..., classes).
        bound: the bound of the network, from `lipschitz_bound`.

    >>> certified_radius(torch.tensor([3.0, 1.0, 0.0]), bound=1.0)
    tensor(1.4142)
    """
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return (first - second) / (math.sqrt(2) * bound)


def _refuse_hooks(path: str, module: nn.Module) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(
            f"{path or 'the model'} has hooks, and what they do to its inputs or outputs is not in "
            "the bound: fold a plan's factors with paramz.fold_(model), or remove the hooks"
        )


def _layers(module: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    if type(module).forward is not nn.Sequential.forward:
        return [(path, module)]
    _refuse_hooks(path, module)
    return [
        found
        for name, child in module._modules.items()  # named_children leaves repetitions out
        if child is not None
        for found in _layers(child, join(path, name))
    ]
