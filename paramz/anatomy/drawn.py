"""Building a model without its memory, and knowing how each of its tensors was initialised.

A factory runs on the meta device as if it were the CPU, and every draw, fill and scaling of a
tensor is noted (`paramz.anatomy.laws`) instead of done. That takes no memory and no time for random
numbers, where a base of many layers has billions of them. What cannot be known without values makes
the build fail, or leaves a tensor without a law; the caller then builds for real.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from paramz.anatomy.laws import Law, Piece, Pieces, constant, known, normal, uniform, within, write

Laws = Mapping[str, Sequence[tuple[int, Law]]]

_CPU, _META = torch.device("cpu"), torch.device("meta")
# Those of torch.nn.init that a mode of functions sees; all others come as what they do.
_SEEN_INITS = frozenset({"uniform_", "normal_", "constant_", "kaiming_uniform_"})


def build_drawn(factory: Callable[[int], nn.Module], width: int) -> tuple[nn.Module, Laws] | None:
    """A model on the meta device and the laws of its parameters' entries, by all their names.

    Args:
        factory: makes the model.
        width: what to call it with.

    Returns:
        None if the factory needs values, puts a parameter elsewhere itself, or does what has no
        law here (as an orthogonal init).

    >>> model, laws = build_drawn(lambda w: nn.LayerNorm(w), 3)
    >>> laws["weight"]
    [(3, Law(kind='constant', low=1.0, high=1.0, mean=0.0, std=0.0))]
    """
    notes = _Notes()
    try:
        with _AsIfOnCpu(notes), notes:
            model = factory(width)
    except Exception:  # whatever a factory says of tensors without values: it is built for real
        return None
    if not isinstance(model, nn.Module):
        return None
    laws = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        pieces = known(notes.held_by(parameter), parameter.numel()) if parameter.is_meta else []
        if not pieces:
            return None
        laws[name] = pieces
    return model, laws


class _AsIfOnCpu(TorchFunctionMode):
    """Puts new tensors on the meta device and says that they are on the CPU.

    Code that asks would otherwise leave out its init, as transformers and parts of torch.nn.init
    do for the meta device.
    """

    def __init__(self, notes: _Notes) -> None:
        super().__init__()
        self._notes = notes

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.is_meta.__get__:  # type: ignore[attr-defined]
            self._notes.questioned = args[0]
            return False
        if func == Tensor.device.__get__:
            found = func(*args)
            return _CPU if found == _META else found
        if getattr(func, "__module__", None) == "torch.nn.init":
            if func.__name__ not in _SEEN_INITS:
                raise NotImplementedError(f"{func.__name__} may do nothing on the meta device")
        elif func in _device_constructors():
            if func is torch.tensor and args and isinstance(args[0], int | float):
                func, args = torch.full, ((), *args)  # so that its number is seen
            asked = kwargs.get("device")
            if asked is None:
                kwargs = {**kwargs, "device": _META}
            elif torch.device(asked) == _META:
                raise NotImplementedError("the factory asks for the meta device itself")
        return func(*args, **kwargs)


class _Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what every stretch of memory on the meta device holds.

    Attributes:
        questioned: the last tensor of which code asked whether it is on the meta device, as
            ``trunc_normal_`` does first of what it draws again until nothing lies outside.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.questioned: Tensor | None = None
        # The storage is kept, so that its number stays its own.
        self._held: dict[int, tuple[Any, Pieces]] = {}
        # The results of comparisons: what was compared, and between which numbers it must lie.
        self._asked: dict[int, tuple[Tensor, Tensor, float, float]] = {}

    def held_by(self, tensor: Tensor) -> Pieces:
        """What a tensor's memory holds; nothing if it is no plain stretch."""
        place = _stretch(tensor)
        if place is None:
            return ()
        _, pieces = self._held.get(tensor.untyped_storage()._cdata, (None, ()))
        return within(pieces, *place)

    def _set(self, tensor: Tensor, law: Law | None) -> None:
        storage = tensor.untyped_storage()
        place = _stretch(tensor)
        if not tensor.is_floating_point():
            law = None  # a complex number has a law of its own, and whole numbers are rounded
        if place is None:  # entries apart from each other: nothing of this memory is known then
            place, law = (0, storage.nbytes()), None
        _, pieces = self._held.get(storage._cdata, (None, ()))
        self._held[storage._cdata] = storage, write(pieces, Piece(*place, law))

    def _law(self, tensor: Any) -> Law | None:
        """The law of all entries of a tensor, if they have one."""
        if not isinstance(tensor, Tensor) or 0 in tensor.shape:
            return None
        if 0 in tensor.stride():  # one entry that stands for many, which a constant may
            law = self._law(tensor[tuple(slice(None) if s else 0 for s in tensor.stride())])
            return law if law is not None and law.kind == "constant" else None
        laws = {law for _, law in known(self.held_by(tensor), tensor.numel())}
        return laws.pop() if len(laws) == 1 else None

    def _number(self, value: Any) -> Any:
        """A number, also where it is one in a tensor of no axes; else what it was."""
        law = self._law(value) if isinstance(value, Tensor) and value.ndim == 0 else None
        return law.low if law is not None and law.kind == "constant" else value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # tensors say here where they are
            return self._noted(func, args, kwargs or {})

    def _noted(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__
        if name in _DRAWN and args[0].device == _META:
            self._set(args[0], _DRAWN[name](*map(self._number, args[1:])))
            return args[0]
        if name == "_local_scalar_dense" and id(args[0]) in self._asked:
            # "Does any entry lie outside?" The answer No ends drawing again.
            _, of, low, high = self._asked[id(args[0])]
            if of is self.questioned:
                law = self._law(of)
                self._set(of, None if law is None else law.between(low, high))
                return False
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.device == _META:
            self._note(name, func, args, kwargs, out)
        else:
            self._forget_written(func, args)
        for each in tree_leaves([kwargs.get("out")]):
            if isinstance(each, Tensor) and each.device == _META:
                self._set(each, None)  # what was computed into it, as eye_ does
        return out

    def _note(self, name: str, func: Any, args: Any, kwargs: dict[str, Any], out: Tensor) -> None:
        if name in _MADE:
            self._set(out, _MADE[name](*args, **kwargs))
        elif name in _MOVED:
            self._set(out, None if kwargs else self._moved(name, args))
        elif name in _COPIED:
            source = args[_COPIED[name]]
            self._set(out, self._law(source) if source.numel() == out.numel() else None)
        elif name == "cat":
            laws = {self._law(each) for each in args[0]}
            self._set(out, laws.pop() if len(laws) == 1 else None)
        elif name in ("lt", "gt") and not isinstance(args[1], Tensor):
            ends = (args[1], math.inf) if name == "lt" else (-math.inf, args[1])
            self._asked[id(out)] = out, args[0], *ends
        elif name in ("bitwise_or", "logical_or", "any"):
            self._ask_together(args, out)
        else:
            self._forget_written(func, args)

    def _moved(self, name: str, args: Any) -> Law | None:
        """The law of entries times, or plus, a number; None if another tensor comes in."""
        law, numbers = self._law(args[0]), [self._number(each) for each in args[1:]]
        if law is None or any(isinstance(number, Tensor) for number in numbers):
            return None
        return _MOVED[name](law, *numbers)

    def _ask_together(self, args: Any, out: Tensor) -> None:
        """Or and any of comparisons of one tensor ask whether an entry of it is outside of all."""
        asked = [self._asked.get(id(each)) for each in args]
        if asked and all(each is not None and each[1] is asked[0][1] for each in asked):  # type: ignore[index]
            lows, highs = zip(*((each[2], each[3]) for each in asked if each), strict=True)
            self._asked[id(out)] = out, asked[0][1], max(lows), min(highs)  # type: ignore[index]

    def _forget_written(self, func: Any, args: Any) -> None:
        if not func._schema.is_mutable:
            return
        for given, value in zip(func._schema.arguments, args, strict=False):
            if given.alias_info is not None and given.alias_info.is_write:
                for each in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(each, Tensor) and each.device == _META:
                        self._set(each, None)


def _stretch(tensor: Tensor) -> tuple[int, int] | None:
    """First entry and end of a tensor's memory; None if it has gaps or entries that are one."""
    size, start = tensor.numel(), int(tensor.storage_offset())
    reach = sum((n - 1) * s for n, s in _axes(tensor))
    if size == 0 or reach + 1 != size or 0 in tensor.stride():
        return None
    return start, start + size


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    return list(zip(tensor.shape, tensor.stride(), strict=True))


def _normal_(mean: float = 0.0, std: float = 1.0) -> Law:
    return normal(mean, std)


def _uniform_(low: float = 0.0, high: float = 1.0) -> Law:
    return uniform(low, high)


def _fill_(value: Any) -> Law | None:
    return None if isinstance(value, Tensor) else constant(float(value))


# What an operation in place leaves, whatever was there before; it need not run.
_DRAWN: dict[str, Callable[..., Law | None]] = {
    "normal_": _normal_,
    "uniform_": _uniform_,
    "fill_": _fill_,
    "zero_": lambda: constant(0.0),
}
# Copies, and which argument is copied.
_COPIED = {"copy_": 1, "clone": 0, "_to_copy": 0, "lift_fresh": 0, "constant_pad_nd": 0}
# What a new tensor holds.
_MADE: dict[str, Callable[..., Law | None]] = {
    "ones": lambda *_, **__: constant(1.0),
    "ones_like": lambda *_, **__: constant(1.0),
    "new_ones": lambda *_, **__: constant(1.0),
    "zeros": lambda *_, **__: constant(0.0),
    "zeros_like": lambda *_, **__: constant(0.0),
    "new_zeros": lambda *_, **__: constant(0.0),
    "scalar_tensor": lambda value, **_: _fill_(value),
    "full": lambda _, value, **__: _fill_(value),
    "full_like": lambda _, value, **__: _fill_(value),
    "new_full": lambda _, __, value, **___: _fill_(value),
    "randn": lambda *_, **__: normal(0.0, 1.0),
    "randn_like": lambda *_, **__: normal(0.0, 1.0),
    "rand": lambda *_, **__: uniform(0.0, 1.0),
    "rand_like": lambda *_, **__: uniform(0.0, 1.0),
}
# What entries become, of a tensor and a number, in place or not.
_MOVED: dict[str, Callable[..., Law]] = {
    "mul": lambda law, by: law.times(by),
    "div": lambda law, by: law.times(1.0 / by),
    "neg": lambda law: law.times(-1.0),
    "add": lambda law, number: law.plus(number),
    "sub": lambda law, number: law.plus(-number),
}
_MOVED |= {f"{name}_": move for name, move in _MOVED.items()}
