"""What a model's parameters must be for a plan to mean what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def require_model(model: object) -> None:
    """Raise if what is given as the model is something else.

    Raises:
        TypeError: it is no module; the message says what to give in place of what it is.

    >>> require_model(nn.Linear(2, 2))
    >>> require_model(nn.Linear(2, 2).parameters())
    Traceback (most recent call last):
    TypeError: the model must be a torch.nn.Module, got generator: give the model itself, ...
    """
    if isinstance(model, nn.Module):
        return
    kind = model.__name__ if isinstance(model, type) else type(model).__name__
    if isinstance(model, torch.optim.Optimizer):
        cure = "the model whose parameters it trains, before any optimizer is made of them"
    elif isinstance(model, type) or (callable(model) and not isinstance(model, Mapping)):
        cure = "what it returns when it is called, as in Net(width)"
    elif isinstance(model, Iterable) and not isinstance(model, str):
        cure = "the model itself, not its parameters or its state_dict"
    else:
        cure = "the model itself"
    raise TypeError(f"the model must be a torch.nn.Module, got {kind}: give {cure}")


def require_made(model: nn.Module) -> None:
    """Raise if a parameter has no shape yet.

    Raises:
        ValueError: so it is; the message says what gives lazy modules their parameters.

    >>> require_made(nn.Linear(2, 2))
    >>> require_made(nn.LazyLinear(2))
    Traceback (most recent call last):
    ValueError: weight, bias of LazyLinear: lazy modules have parameters ...
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"{', '.join(lazy[:4])}{', ...' if lazy[4:] else ''} of {type(model).__name__}: lazy "
            "modules have parameters only once they have seen a batch. Run one through the model, "
            "and through what the base's factory returns: "
            "def build(width): model = Net(width); model(batch); return model"
        )


def require_apart(model: nn.Module) -> None:
    """Raise if two parameters, of which one is trained, are over one memory.

    An optimizer moves it once for each of them, and a plan would scale it twice.

    Raises:
        ValueError: so it is; the message says how to share one parameter.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> net[1].weight = net[0].weight  # one parameter
    >>> require_apart(net)
    """
    known: dict[tuple[torch.device, int], tuple[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        # Those of another class may have no memory of their own, as shards and fakes.
        if type(parameter) is not nn.Parameter or parameter.is_meta or not parameter.numel():
            continue
        place = parameter.data_ptr()
        if not place:  # its memory is freed, as of sharded models between their layers
            continue
        first, other = known.setdefault((parameter.device, place), (name, parameter))
        if other is parameter or not (other.requires_grad or parameter.requires_grad):
            continue
        raise ValueError(
            f"{first} {tuple(other.shape)} and {name} {tuple(parameter.shape)} are two parameters "
            "over one memory: an optimizer moves it once for each, and a plan would scale it "
            "twice. Share one parameter, as in head.weight = embed.weight (not .data). Adapters of "
            "PEFT are so by ensure_weight_tying=True: leave it out, and the embedding and the "
            "readout have adapters of their own"
        )
