"""Residual sums that a run of a model shows, and the last matrices of what is added in them.

Names tell where most branches end; what the code adds to the stream does not depend on names. In
``x + branch(x)`` the second term was made from the first one through a matrix. The run is on the
meta device, or where the model is if its code does not run there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from paramz.anatomy.runs import copied_to, device_of, on_meta, run, tensors_in
from paramz.anatomy.streams import Added, Reader, State


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
    ones = {name for name, p in model.named_parameters() if p.is_meta or _is_one(p)}
    with ExitStack() as stack:
        if meta:
            stack.enter_context(on_meta(model))
        reader = Reader()
        for name, parameter in model.named_parameters():
            own = frozenset([name])
            weights = own if parameter.ndim >= 2 else frozenset[str]()
            reader.known.put(parameter, State(weights=weights, bare=own, weighed=name not in ones))
        moved = copied_to(device_of(model), inputs)
        for number, tensor in enumerate(tensors_in(moved)):
            reader.known.put(tensor, State(data=True, at=-number))
        stack.enter_context(_told_of_ends(model, ends, reader))
        run(model, moved, reader, kept)
    return reader.added()


def _is_one(parameter: nn.Parameter) -> bool:
    """Whether a parameter that may multiply the stream starts at one, and leaves it as it is."""
    return parameter.ndim < 2 and bool((parameter == 1).all())


@contextmanager
def _told_of_ends(model: nn.Module, ends: Iterable[str], reader: Reader) -> Iterator[None]:
    known = set(ends)
    handles = [
        module.register_forward_hook(
            lambda *a, path=path: (reader.end if path in known else reader.left)(
                path, tensors_in(a[-1])
            )
        )
        for path, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
