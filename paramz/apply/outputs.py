"""What a model or a module returns: the tensors in it, the prediction, the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def activations(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value that can be activations: real or complex, with an axis and entries.

    Integers are indices or masks, scalars are losses, and an expert that no token chose puts out
    nothing. Objects that are neither a container nor a dataclass, such as caches, are left alone.

    >>> output = torch.tensor(0.5), {"h": torch.ones(2)}, [torch.ones(3)]
    >>> [len(tensor) for tensor in activations(output)]
    [2, 3]
    """
    if isinstance(value, torch.Tensor):
        if (value.is_floating_point() or value.is_complex()) and value.dim() and value.numel():
            yield value
    else:
        for part in _parts(value):
            yield from activations(part)


def prediction(output: Any) -> torch.Tensor | None:
    """What a model predicts: its logits if they have that name, else its first activations."""
    logits = (
        output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    )
    return next(activations(output if logits is None else logits), None)


def loss_in(output: Any) -> torch.Tensor:
    """The loss that a model computed itself.

    It is ``output.loss`` or ``output["loss"]``, or the one scalar in a tuple such as
    ``(logits, loss)``; a scalar alone is a loss, too.

    Raises:
        TypeError: there is no loss, or one that is no single number, or there are several scalars
            in a tuple.

    >>> loss_in((torch.ones(2, 3), torch.tensor(0.5))), loss_in({"loss": torch.tensor(0.5)})
    (tensor(0.5000), tensor(0.5000))
    """
    named = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(named, torch.Tensor):
        return require_number(named, f"the 'loss' in the {type(output).__name__} of the model")
    parts = list(output) if isinstance(output, tuple | list) else [output]
    scalars = [x for x in parts if isinstance(x, torch.Tensor) and _is_real_scalar(x)]
    if len(scalars) == 1:
        return scalars[0]
    what = "no loss" if not scalars else f"{len(scalars)} scalars, any of which may be the loss,"
    raise TypeError(
        f"the model returned {what} in {_described(output)}: return an object or a dict with "
        "'loss', or a tuple with one scalar (Hugging Face models need labels in the batch), or "
        "give your own loss=f(model, batch)"
    )


def require_number(loss: Any, what: str) -> torch.Tensor:
    """The loss, if it is one number.

    Args:
        loss: what is to be one.
        what: what to call it.

    Raises:
        TypeError: it is none, as one loss for each example is not; the message says what to return.

    >>> require_number(torch.tensor(0.5), "the loss")
    tensor(0.5000)
    """
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss
    found = _described(loss)
    raise TypeError(
        f"{what} is {found}, and training needs one number: return loss.mean(), or the sum over "
        "what counts divided by how many count"
        if isinstance(loss, torch.Tensor)
        else f"{what} is {found}, and training needs a tensor of one number, with its graph"
    )


def _is_real_scalar(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() == 0


def _described(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {', '.join(map(_described, output)) or 'nothing'}"
    return type(output).__name__


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, tuple | list):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, field.name) for field in fields(value))
