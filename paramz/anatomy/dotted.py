"""Bare vectors with which a run takes dot products, as additive attention's ``tanh(h) @ v``.

A vector is applied entry by entry, as biases and gains are, unless code multiplies data by it and
sums: then width is its fan_in, and it reads out of width as a matrix with one output does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy.axes import Axes
from paramz.anatomy.inputs import of_hugging_face, possible_inputs
from paramz.anatomy.memory import Known
from paramz.anatomy.runs import copied_to, device_of, run, tensors_in
from paramz.anatomy.tensors import ModelTensor

_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"})
# What makes of a vector one that is used in its place.
_COPIES = frozenset("clone _to_copy mul div neg exp tanh sigmoid softplus".split())


def find_dotted(
    model: nn.Module,
    base: Mapping[str, ModelTensor],
    wider: Mapping[str, tuple[int, ...]],
    example: Any = None,
) -> dict[str, Axes]:
    """Name -> axes of the bare vectors, and gains of several axes, over which sums with data run.

    Args:
        model: the wider probe; it runs once if it has such tensors.
        base: the tensors of the base.
        wider: the shapes of those of the wider model.
        example: what to call the model with; inputs are guessed if it is left out.

    >>> import torch
    >>> from paramz.anatomy.tensors import read_shapes, read_tensors
    >>> class Score(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.first, self.v = nn.Linear(2, width), nn.Parameter(torch.ones(width))
    ...     def forward(self, x):
    ...         return self.first(x).tanh() @ self.v
    >>> find_dotted(Score(8), read_tensors(Score(4)), read_shapes(Score(8)))
    {'v': Axes(fan_in=(0,), fan_out=(), vector=False)}
    """
    if of_hugging_face(model):  # its names tell
        return {}
    modules: dict[str, nn.Module] = {}
    wanted = {}
    for name, tensor in base.items():
        growing = _growing(tensor.shape, wider[name])
        if len(growing) == 1 and _may_be_vector(tensor):
            modules = modules or dict(model.named_modules(remove_duplicate=False))
            if _is_of_users(tensor, modules):
                wanted[name] = growing[0]
    found = _dotted(model, wanted, example) if wanted else set()
    return {
        name: Axes((axis,), tuple(a for a in range(len(base[name].shape)) if a != axis))
        for name, axis in wanted.items()
        if name in found
    }


def _growing(one: tuple[int, ...], other: tuple[int, ...]) -> list[int]:
    return [a for a, (b, w) in enumerate(zip(one, other, strict=False)) if b != w]


def _may_be_vector(tensor: ModelTensor) -> bool:
    """Whether its place does not tell that it is a matrix, or a bias."""
    vague = all(use.axes is None or use.axes.vector for use in tensor.uses)
    return vague and not any(use.local.endswith("bias") for use in tensor.uses)


def _is_of_users(tensor: ModelTensor, modules: Mapping[str, nn.Module]) -> bool:
    """Whether code of a user's own has it."""
    owners = [type(modules[use.module]) for use in tensor.uses]
    lists = (nn.ParameterList, nn.ParameterDict)  # torch's, and what they hold is a user's
    return all(o in lists or not o.__module__.startswith("torch.nn") for o in owners)


def _dotted(model: nn.Module, wanted: Mapping[str, int], example: Any) -> set[str]:
    for inputs in possible_inputs(model, example):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of code that meets a guess
                watcher = _Watcher(model, wanted)
                moved = copied_to(device_of(model), inputs)
                for tensor in tensors_in(moved):
                    watcher.data.put(tensor, True)
                run(model, moved, watcher, None)
        except Exception:  # any model's own code, on inputs that it may not like
            continue
        return watcher.found()
    return set()


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is done with some tensors along the one axis of each that grows."""

    def __init__(self, model: nn.Module, wanted: Mapping[str, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.data = Known(False)
        self.dotted: set[str] = set()
        self.otherwise: set[str] = set()
        # Products entry by entry: memory -> (vector, shape, axis); and those that were summed up.
        self.products: dict[int, tuple[str, tuple[int, ...], int]] = {}
        self.summed: set[int] = set()
        self._vectors: dict[int, tuple[str, Tensor, int]] = {}
        parameters = dict(model.named_parameters())
        for name, axis in wanted.items():
            parameter = parameters[name]
            self._vectors[parameter.untyped_storage()._cdata] = name, parameter, axis
        self._kept: list[Tensor] = []  # an address is unique only as long as its memory lives

    def found(self) -> set[str]:
        """The vectors of which nothing but sums along that axis was taken."""
        apart = {self.products[memory][0] for memory in self.products.keys() - self.summed}
        return self.dotted - self.otherwise - apart

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = tensors_in((args, kwargs))
        data = any(self.data.of(x) for x in tensors)
        if not func.is_view:
            self._note(func.overloadpacket.__name__, args, tensors, out, data)
            for tensor in tensors_in(out) if data else ():
                self.data.put(tensor, True)
        return out

    def _note(self, name: str, args: Any, tensors: list[Tensor], out: Any, data: bool) -> None:
        for number, tensor in enumerate(tensors):
            memory = tensor.untyped_storage()._cdata
            product, known = self.products.get(memory), self._vectors.get(memory)
            if product is not None:
                vector, shape, axis = product
                if name == "sum" and tuple(tensor.shape) == shape and axis in _gone(*args):
                    self.summed.add(memory)
                    self.dotted.add(vector)
                else:
                    self.otherwise.add(vector)
            if known is None:
                continue
            vector, place = known[0], self._place(tensor)
            if name == "repeat" and place is not None and args[1][place - tensor.ndim] == 1:
                self._kept.append(out)
                self._vectors[out.untyped_storage()._cdata] = vector, out, place - tensor.ndim
            elif name in _COPIES and len(tensors) == 1 and out.shape == tensor.shape:
                self._kept.append(out)
                if place is not None:
                    self._vectors[out.untyped_storage()._cdata] = vector, out, place
            elif name in _PRODUCTS and number < len(tensors) - 2:
                self.otherwise.add(vector)  # what addmm adds, as of F.linear a bias
            elif name in _PRODUCTS and data and place is not None:
                left = number == len(tensors) - 2
                summed = tensor.ndim - 1 if left else max(tensor.ndim - 2, 0)
                (self.dotted if place == summed else self.otherwise).add(vector)
            elif name == "mul" and data and place is not None:
                self._kept.append(out)
                at = place + out.ndim - tensor.ndim
                self.products[out.untyped_storage()._cdata] = vector, tuple(out.shape), at
            else:
                self.otherwise.add(vector)

    def _place(self, tensor: Tensor) -> int | None:
        """Which axis of a view of such a tensor is the one that grows."""
        _, whole, axis = self._vectors[tensor.untyped_storage()._cdata]
        size, step = whole.shape[axis], whole.stride(axis)
        sides = zip(tensor.shape, tensor.stride(), strict=True)
        return next((a for a, side in enumerate(sides) if side == (size, step)), None)


def _gone(tensor: Tensor, axes: Iterable[int] | None = None, *_: Any) -> set[int]:
    """The axes over which torch's sum runs."""
    return {a % max(tensor.ndim, 1) for a in axes or range(tensor.ndim)}
