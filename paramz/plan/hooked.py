"""Hooks by which modules of a plain model multiply what no weight of theirs can hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn


def scale_input(
    factor: float, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a module, with keyword arguments: its first input times a factor.

    Raises:
        TypeError: the module was called without any input.
    """
    if args:
        return (args[0] * factor, *args[1:]), dict(kwargs)
    if not kwargs:
        raise TypeError(
            f"paramz multiplies the input of this {type(module).__name__}, which was called "
            "without any: pass its input as an argument"
        )
    name, first = next(iter(kwargs.items()))
    return args, {**kwargs, name: first * factor}


def scale_output(factor: float, module: nn.Module, args: Any, output: Any) -> Any:
    """Behind a module: its output, or the first of several, times a factor."""
    if isinstance(output, tuple):
        return (output[0] * factor, *output[1:])
    return output * factor


def scale_key(
    factor: float, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before attention, with keyword arguments: its keys times a factor."""
    if len(args) > 1:
        return (args[0], args[1] * factor, *args[2:]), dict(kwargs)
    return args, {**kwargs, "key": kwargs["key"] * factor}


def hooked_factors(module: nn.Module) -> list[float]:
    """The factors that hooks of plans put on what goes into a module or comes out of it.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.register_forward_hook(partial(scale_output, 0.5))
    >>> hooked_factors(layer)
    [0.5]
    """
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ours = (scale_input, scale_output, scale_key)
    return [hook.args[0] for hook in hooks if isinstance(hook, partial) and hook.func in ours]
