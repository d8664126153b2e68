"""Residual sums that a run of a model shows, and the last matrices of what is added in them.

Names tell where most branches end; what the code adds to the stream does not depend on names. In
``x + branch(x)`` the second term was made from the first one through a matrix. The run is on the
meta device, or where the model is if its code does not run there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from paramz.anatomy.paths import split
from paramz.anatomy.runs import copied_to, device_of, on_meta, run, tensors_in
from paramz.anatomy.streams import Reader
from paramz.anatomy.tensors import is_line
from paramz.anatomy.terms import Added, State


def find_added(
    model: nn.Module,
    ends: Iterable[str],
    inputs: Any,
    kept: int | None = 2,
    *,
    meta: bool = True,
) -> Added:
    """What ends the branches of a model: the last matrices before every residual sum.

    Args:
        model: on any device; it runs in eval mode and is left as it was.
        ends: paths of the modules that are known to end branches.
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run; None: all of them.
        meta: it runs on the meta device, else where it is.

    >>> import torch
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.up, self.back = nn.Linear(4, 8), nn.Linear(8, 4)
    ...     def forward(self, x):
    ...         return x + self.back(self.up(x).relu())
    >>> find_added(Net(), [], torch.ones(1, 4)).unended
    {'back.weight'}
    >>> find_added(Net(), ["back"], torch.ones(1, 4)).ended
    {'back'}
    """
    ones = {name for name, x in _weights_of(model).items() if x.is_meta or _is_one(x)}
    with ExitStack() as stack:
        if meta:
            stack.enter_context(on_meta(model))
        reader = Reader()
        for name, tensor in _weights_of(model).items():
            own = frozenset([name])
            matrix = tensor.ndim >= 2 and isinstance(tensor, nn.Parameter)
            weights = own if matrix else frozenset[str]()
            reader.known.put(tensor, State(weights=weights, bare=own, weighed=name not in ones))
        moved = copied_to(device_of(model), inputs)
        for number, tensor in enumerate(tensors_in(moved)):
            reader.known.put(tensor, State(data=True, at=-number))
        stack.enter_context(_told_of_ends(model, ends, reader))
        run(model, moved, reader, kept)
    return reader.added()


def called(model: nn.Module, path: str) -> str:
    """The module whose forward runs: torch's attention reads its out_proj without calling it."""
    above, _ = split(path)
    return above if isinstance(model.get_submodule(above), nn.MultiheadAttention) else path


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """What the stream may be multiplied by: parameters, and buffers that are one number each."""
    numbers = {name: buffer for name, buffer in model.named_buffers() if buffer.numel() == 1}
    return {**numbers, **dict(model.named_parameters())}


def _is_one(tensor: Tensor) -> bool:
    """Whether a gain starts at one, and leaves what it multiplies as it is."""
    return is_line(tensor) and bool((tensor == 1).all())


@contextmanager
def _told_of_ends(model: nn.Module, ends: Iterable[str], reader: Reader) -> Iterator[None]:
    known = {called(model, path): path for path in ends}

    def told(path: str, inputs: Any, outputs: Any) -> None:
        if path in known:
            attends = path != known[path]  # its weights of attention are no part of the branch
            reader.end(known[path], tensors_in(outputs)[: 1 if attends else None])
        else:
            reader.left(path, tensors_in(outputs), tensors_in(inputs))

    handles = [
        module.register_forward_hook(
            lambda *a, path=path: told(path, a[1:-1], a[-1]), with_kwargs=True
        )
        for path, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
