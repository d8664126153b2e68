"""Carry the numbers of a weight's rows through one run of a model, and see which are used together.

Every tensor that is made of rows of a followed weight has, beside its values, the number of the row
that each entry comes from. What moves entries moves numbers, on small integer tensors on the CPU,
whatever the device of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from paramz.anatomy.operations import NORMS
from paramz.anatomy.paths import above
from paramz.anatomy.runs import copied_to, device_of, run, short_lists, tensors_in

# Operations that move entries and change none. On row numbers they do what they do on values.
_SHAPES = frozenset({"view", "_unsafe_view", "reshape"})
_MOVES = _SHAPES | frozenset(
    """t transpose permute split split_with_sizes slice select unsqueeze
    squeeze expand unbind index index_select clone detach alias cat stack flip roll repeat unfold
    constant_pad_nd""".split()
)
# Reductions of which the result still belongs to the rows: a norm's written-out mean of squares.
_REDUCES = frozenset("mean sum amax linalg_vector_norm norm std var var_mean".split())

# The most bytes of numbers for one tensor: a run is to take no longer than the others do.
_MOST = 2**28


@dataclass(frozen=True)
class Uses:
    """What a run does with the rows of one tensor.

    Attributes:
        size: how many rows there are.
        together: of every use, in order, the rows that it takes.
        latent: the rows of which a norm takes what they make, before anything else does.
    """

    size: int
    together: tuple[tuple[int, ...], ...]
    latent: frozenset[int]


def uses_of(
    model: nn.Module, axes: Mapping[str, int], inputs: Any, kept: int | None
) -> dict[str, Uses]:
    """What one run does with the rows of every tensor that it uses.

    Args:
        model: on any device; it is left as it was.
        axes: name of a parameter -> the axis of its rows.
        inputs: the model's one argument, or a mapping of keyword arguments.
        kept: how many equal blocks of a list run, of lists that have none of these parameters in
            them: what a block does with its rows may depend on its number. None: all of them.

    Raises:
        ValueError: an index depends on values, or the numbers are too many to carry.
        Exception: whatever the model's own code raises.
    """
    watcher = _Rows()
    for name, parameter in model.named_parameters():
        if name in axes:
            watcher.expect(name, parameter, axes[name])
    around = {path for name in axes for path in above(name)}
    with ExitStack() as stack:
        if kept is not None:
            stack.enter_context(short_lists(model, kept, around))
        stack.enter_context(_NumbersOfIndices())
        run(model, copied_to(device_of(model), inputs), watcher, None)
    return watcher.uses()


class _NumbersOfIndices(TorchFunctionMode):
    """Keeps on the meta device the numbers of an index that is a list, as in ``x[..., [-1]]``."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__getitem__ and isinstance(args[1], tuple):
            index = tuple(
                torch.tensor(i, device="cpu") if isinstance(i, list) else i for i in args[1]
            )
            args = args[0], index
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Carried:
    """What is known of a tensor.

    Attributes:
        tensor: it itself.
        name: of the weight.
        rows: of that weight, from which its entries are or come; counted from one, zero for none.
        data: it was made of the model's input, too.
        normed: it has been divided by what a norm is made of; of a reduction, it is that.
    """

    tensor: Tensor
    name: str
    rows: Tensor
    data: bool
    normed: bool = False


class _Rows(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries the numbers of rows along with the values while a model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By tensors, which are kept, so that a number stays its own.
        self._carried: dict[int, _Carried] = {}
        self._reduced: dict[int, _Carried] = {}
        self._sizes: dict[str, int] = {}
        self._together: dict[str, list[tuple[int, ...]]] = {}
        self._normed: dict[str, set[int]] = {}
        self._other: dict[str, set[int]] = {}

    def expect(self, name: str, parameter: Tensor, axis: int) -> None:
        size = parameter.shape[axis]
        shape = [size if a == axis else 1 for a in range(parameter.ndim)]
        rows = torch.arange(1, size + 1, device="cpu").view(shape).expand(parameter.shape)
        self._carried[id(parameter)] = _Carried(parameter, name, rows, data=False)
        self._sizes[name] = size

    def uses(self) -> dict[str, Uses]:
        return {
            name: Uses(
                self._sizes[name],
                tuple(together),
                frozenset(self._normed.get(name, ())) - self._other.get(name, set()),
            )
            for name, together in self._together.items()
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        flat = tensors_in(args)
        carried = [self._carried[id(x)] for x in flat if id(x) in self._carried]
        reduced = [self._reduced[id(x)] for x in flat if id(x) in self._reduced]
        if not carried and not reduced:
            return out
        op = func.overloadpacket.__name__
        if op in NORMS:
            for each in (*carried, *reduced):
                if not each.normed:
                    self._normed.setdefault(each.name, set()).update(_numbers(each.rows))
        if not carried:
            if torch.Tag.pointwise in func.tags or op in _MOVES or op in _REDUCES:
                normed = reduced[0].normed or op in NORMS
                self._put(self._reduced, out, replace(reduced[0], normed=normed))
        elif op in _MOVES:
            self._move(func, args, kwargs or {}, out, carried)
        elif torch.Tag.pointwise in func.tags or op in ("_to_copy", "copy_"):
            self._pass(out, carried, reduced)
        elif not self._multiply(op, args, out):
            self._use(carried, op)
            if op in _REDUCES and len(carried) == 1:
                for tensor in tensors_in(out):
                    self._put(self._reduced, tensor, replace(carried[0], normed=op in NORMS))
        return out

    def _put(self, where: dict[int, _Carried], out: Any, of: _Carried) -> None:
        if not isinstance(out, Tensor):
            return
        if of.rows.untyped_storage().nbytes() > _MOST:
            raise ValueError("too many numbers")
        where[id(out)] = replace(of, tensor=out)

    def _move(
        self, func: Any, args: Any, kwargs: dict[str, Any], out: Any, carried: list[_Carried]
    ) -> None:
        """The same with the numbers, which count from one; what carries none stands for zero."""
        if len({each.name for each in carried}) > 1:
            self._use(carried)
            return
        first = carried[0]

        def numbers(x: Any) -> Any:
            if isinstance(x, list | tuple):
                return [numbers(each) for each in x]
            if not isinstance(x, Tensor):
                return x
            if id(x) in self._carried:
                return self._carried[id(x)].rows
            if x.is_floating_point() or x.is_complex():
                return torch.zeros(x.shape, dtype=torch.long, device="cpu")
            if x.is_meta:
                raise ValueError("an index without numbers")
            return x.cpu()

        op = func.overloadpacket.__name__
        if op in _SHAPES:  # whose strides the numbers may not have
            moved = first.rows.reshape(out.shape)
        elif op == "clone":
            moved = first.rows  # most of them stand for many, and need no memory
        else:
            options = {k: v for k, v in kwargs.items() if k != "memory_format"}
            taken = args[:2] if op == "constant_pad_nd" else args  # whatever it pads with
            moved = func(*[numbers(each) for each in taken], **options)
        pairs = zip(out, moved, strict=True) if isinstance(out, list | tuple) else [(out, moved)]
        for tensor, rows in pairs:
            self._put(self._carried, tensor, replace(first, rows=rows))

    def _pass(self, out: Any, carried: list[_Carried], reduced: list[_Carried]) -> None:
        """Entry by entry: the result has the rows of the first, and the others are used."""
        first = carried[0]
        others = [c for c in carried[1:] if set(_numbers(c.rows)) != set(_numbers(first.rows))]
        if others:
            self._use(others)
        if isinstance(out, Tensor):
            rows = torch.broadcast_to(first.rows, out.shape)
            normed = first.normed or any(each.normed for each in reduced)
            self._put(self._carried, out, replace(first, rows=rows, normed=normed))

    def _multiply(self, op: str, args: Any, out: Any) -> bool:
        """Whether a product makes data of a weight's rows, or passes channels on one by one."""
        if op in ("mm", "addmm", "bmm", "baddbmm"):
            weight = self._carried.get(id(args[-1]))
            if weight is None or weight.data or id(args[-2]) in self._carried:
                return False
            if not _constant(weight.rows, weight.rows.ndim - 2):
                return False
            rows = weight.rows.select(-2, 0).unsqueeze(-2).expand(out.shape)
        elif op == "convolution":
            x, weight, groups = (
                self._carried.get(id(args[0])),
                self._carried.get(id(args[1])),
                args[8],
            )
            if x is None and weight is not None and groups == 1 and not args[6]:
                rows = weight.rows.flatten(1)[:, 0]
            elif x is not None and weight is None and groups == args[0].shape[1] == out.shape[1]:
                weight, rows = x, x.rows[0].flatten(1)[:, 0]
            else:
                return False
            rows = rows.view(1, -1, *[1] * (out.ndim - 2)).expand(out.shape)
        else:
            return False
        self._put(self._carried, out, replace(weight, rows=rows, data=True))
        return True

    def _use(self, carried: Iterable[_Carried], op: str = "") -> None:
        for each in carried:
            rows = tuple(sorted(_numbers(each.rows)))
            self._together.setdefault(each.name, []).append(rows)
            if op not in NORMS and op not in _REDUCES and not each.normed:
                self._other.setdefault(each.name, set()).update(rows)


def _numbers(rows: Tensor) -> set[int]:
    for axis, step in enumerate(rows.stride()):
        if step == 0 and rows.shape[axis] > 1:
            rows = rows.narrow(axis, 0, 1)
    return {n - 1 for n in torch.unique(rows).tolist() if n > 0}


def _constant(rows: Tensor, axis: int) -> bool:
    return bool((rows == rows.narrow(axis, 0, 1)).all())
