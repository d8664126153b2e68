"""Calling a user's factory: on meta where that works, without touching the random state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Factory = Callable[[int], nn.Module]


def build_at(factory: Factory, width: int, *, on_meta: bool) -> nn.Module:
    """Call the factory without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        model: Any = None
        if on_meta:
            try:
                with torch.device("meta"), _SkipInit():
                    model = factory(width)
            except Exception:  # it may need real values, for which torch has many errors
                model = None  # build it for real: an error of the factory's own comes again
        if model is None:
            model = factory(width)
    if not isinstance(model, nn.Module):
        raise TypeError(f"the factory returned {type(model).__name__} at width {width}, no module")
    return model


def build_multiple(factory: Factory, width: int, times: int) -> nn.Module | None:
    """The model on meta at a multiple of a width; None if the factory cannot."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _SkipInit():
            made: Any = factory(times * width)
    except Exception:  # whatever a factory raises at a width that nobody asked for
        return None
    return made if isinstance(made, nn.Module) else None


class _SkipInit(TorchFunctionMode):
    """Leaves out torch.nn.init inside a factory: half the time of building a model on meta."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
