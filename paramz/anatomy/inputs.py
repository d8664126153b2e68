"""Inputs with which a model can be run when nobody gave any: only their shapes have to fit.

They are guesses, tried one after the other. What a run with them shows depends on the model's code
alone, so any that the model takes will do.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_TOKENS = 4
# Side lengths of pictures and lengths of signals that models are built for.
_SIDES = (8, 16, 28, 32, 64, 224)


def possible_inputs(model: nn.Module, example: Any = None) -> Iterator[Any]:
    """Inputs that a model may take, the likeliest first.

    Args:
        model: the model.
        example: what the user gave: a tensor, a mapping of keyword arguments, or a pair whose first
            part is one of these; if there is one, nothing is guessed.

    Yields:
        a tensor, or a mapping of keyword arguments.

    >>> [tuple(x.shape) for x in possible_inputs(nn.Linear(3, 2))]
    [(2, 3), (2, 4, 3), (2, 4)]
    """
    if example is not None:
        yield example[0] if isinstance(example, tuple | list) else example
    elif of_hugging_face(model):
        yield from _by_config(model, model.config)
    elif len(_required(model)) == 1:
        yield from _by_first_layer(model)


def of_hugging_face(model: nn.Module) -> bool:
    """Whether a model has a config of Hugging Face's; users keep others under the same name.

    >>> net = nn.Linear(2, 2)
    >>> net.config = {"width": 2}
    >>> of_hugging_face(net)
    False
    """
    return hasattr(getattr(model, "config", None), "model_type")


def _required(model: nn.Module) -> list[str]:
    """The arguments that forward cannot do without."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind in kinds]


def _named_inside(model: nn.Module) -> nn.Module:
    """The model, or where its forward only hands on whatever it gets (as PEFT's), the one inside.

    >>> class Wrapper(nn.Module):
    ...     def __init__(self, inner):
    ...         super().__init__()
    ...         self.inner = inner
    ...
    ...     def forward(self, *args, **kwargs):
    ...         return self.inner(*args, **kwargs)
    >>> _named_inside(Wrapper(Wrapper(nn.Linear(3, 2))))
    Linear(in_features=3, out_features=2, bias=True)
    """
    anything = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    while all(p.kind in anything for p in inspect.signature(model.forward).parameters.values()):
        inner = list(model.children())
        if len(inner) != 1:
            break
        model = inner[0]
    return model


def _by_first_layer(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield torch.zeros(2, _TOKENS, dtype=torch.long)
        elif isinstance(module, nn.Linear):
            yield torch.zeros(2, module.in_features)
            yield torch.zeros(2, _TOKENS, module.in_features)
            yield torch.zeros(2, _TOKENS, dtype=torch.long)  # of a table that no layer is
        elif isinstance(module, nn.RNNBase):
            yield torch.zeros(2, _TOKENS, module.input_size)
        elif isinstance(module, nn.modules.conv._ConvNd):
            for side in _SIDES:
                yield torch.zeros(2, module.in_channels, *[side] * len(module.kernel_size))
        else:
            continue
        return


def _by_config(model: nn.Module, config: Any) -> Iterator[Mapping[str, Any]]:
    """Keyword arguments for a Hugging Face model, those that its forward has."""
    ids = torch.zeros(1, _TOKENS, dtype=torch.long)
    known = dict(inspect.signature(_named_inside(model).forward).parameters)
    text = {"input_ids": ids, "decoder_input_ids": ids, "use_cache": False}
    vision = getattr(config, "vision_config", config)
    side, channels = (getattr(vision, n, None) for n in ("image_size", "num_channels"))
    pictures: dict[str, Any] = {}
    if isinstance(side, int):
        pictures["pixel_values"] = torch.zeros(1, channels or 3, side, side)
    signals: dict[str, Any] = {"input_values": torch.zeros(1, 4096)}
    bins, positions = (getattr(config, n, None) for n in ("num_mel_bins", "max_source_positions"))
    if isinstance(bins, int) and isinstance(positions, int):
        signals["input_features"] = torch.zeros(1, bins, 2 * positions)
    alone = {name: value for name, value in text.items() if name != "input_ids"}
    for given in (text, {**text, **pictures}, {**alone, **pictures}, {**alone, **signals}):
        yield {name: value for name, value in given.items() if name in known}
