"""Factors that are written in forward code and move with width, such as ``embed(ids) * sqrt(d)``.

No attribute shows them, so both probes run once and every multiplication by a number is noted, with
the matrix that made what is multiplied, or that is multiplied itself (``weight * fan_in**-0.5``, as
layers with an equalised learning rate have it). A number that differs between the probes moves with
width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from paramz.anatomy import operations as ops
from paramz.anatomy.constants import Constants
from paramz.anatomy.held import Seen, WrittenFactor, factors_of, place_of
from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.lengths import DIVIDED, ENTRIES, TIMES, Length, length_of
from paramz.anatomy.probes import Probes
from paramz.anatomy.runs import copied_to, device_of, outputs, run
from paramz.anatomy.tensors import chooses

_MAPS = frozenset(
    """linear matmul mm addmm __matmul__ einsum bmm baddbmm conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d""".split()
)
_KEPT_BLOCKS = 2  # the first one may be without a number that the others have
_ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")
_SUMS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "cat"})
_RECURRENT = frozenset("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell".split())
# What leaves the numbers of a weight as they are.
_VIEWS = frozenset("t transpose reshape view permute contiguous to type_as squeeze".split())
# What a tensor becomes here has a size of its own.
_NORMALISED = ("norm", "softmax", "normalize", "rsqrt", "var", "std", "mean", "tanh", "sigmoid")

# Behind these a number is no factor any more.
_BENT = frozenset("sin cos sinh cosh erf atan log log1p polar __rpow__".split())


@dataclass(frozen=True)
class _Label:
    """What is known of a tensor: the matrix that made it, how, factors since, and its length.

    ``unit`` is the number of that multiplication, where vectors of length one went into the matrix;
    ``over`` is the length of the sums since, of activations or with a matrix that code computes;
    ``shares`` says that it is a softmax, whose sums are averages.
    """

    made_by: str | None = None
    kind: str = ""
    pending: frozenset[int] = field(default_factory=frozenset)
    length: Length | None = None
    unit: int | None = None
    over: int = 1
    shares: bool = False


def find_written(model: nn.Module, probes: Probes, example: Any = None) -> list[WrittenFactor]:
    """Numbers in forward code that multiply what layers put out, or weights, and move with width.

    Those on queries and keys, and on what a norm or a softmax takes, are none of them, and neither
    are those beside a sum over width that no layer takes: it needs them. Empty where a model cannot
    be run with what is at hand.

    Args:
        model: the target; only shapes are looked at.
        probes: base and wider model; both run once.
        example: what to call the model with; inputs are guessed if it is left out.

    >>> class Net(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.width, self.embed = width, nn.Embedding(5, width)
    ...     def forward(self, ids):
    ...         return self.embed(ids) * self.width**0.5
    >>> (found,) = find_written(Net(16), Probes(Net(4), Net(8)))
    >>> found.module, round(found.power, 3), round(found.held, 3)
    ('embed', 0.5, 0.5)
    """
    found = _moving(probes, example, (_KEPT_BLOCKS, None))
    if any(part.isdigit() for one, _ in found for part in str(place_of(one)).split(".")):
        # Which of the blocks that did not run have the number shows where all do.
        found = _moving(probes, example, (None,)) or found
    names: dict[str, list[str]] = {}
    for name, _ in model.named_parameters(remove_duplicate=False) if found else ():
        names.setdefault(probes.twin_name(name) or "", []).append(name)
    factors = [each for pair in found for each in factors_of(model, probes, pair, names)]
    return list({(each.module, each.place): each for each in factors}.values())


def _moving(probes: Probes, example: Any, blocks: Sequence[int | None]) -> list[tuple[Seen, Seen]]:
    """The multiplications of both probes by numbers that differ.

    Args:
        probes: base and wider model.
        example: what to call them with.
        blocks: how many equal ones of a list run, the first number with which a model does.
    """
    runs = _runs(probes, example, blocks)
    if runs is None:
        return []
    seen, wider = runs
    alike = [(one.made_by, one.kind, one.into) for one in seen] == [
        (one.made_by, one.kind, one.into) for one in wider
    ]
    return [
        (one, other)
        for one, other in (zip(seen, wider, strict=True) if alike else ())
        if one.value > 0 and other.value > 0 and not math.isclose(one.value, other.value)
        if one.over == other.over
    ]


def _runs(
    probes: Probes, example: Any, blocks: Sequence[int | None]
) -> tuple[list[Seen], list[Seen]] | None:
    for inputs in possible_inputs(probes.base, example):
        for kept in blocks:  # code that counts its blocks needs all of them
            try:
                seen = _seen(probes.base, inputs, kept)
                known = any(place_of(each) is not None for each in seen)
                return seen, _seen(probes.wider, inputs, kept) if known else seen
            except Exception:  # whatever a model says of an input that is not for it
                continue
    return None


def _seen(model: nn.Module, inputs: Any, kept: int | None) -> list[Seen]:
    copied = copied_to(device_of(model), inputs)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    reader = _Reader(names, Constants())
    with torch.no_grad():
        reader.end(outputs(run(model, copied, reader, kept)))
    return reader.seen


class _Reader(TorchFunctionMode):
    """Notes every multiplication by a number, and which matrices are before and behind it."""

    def __init__(self, names: Mapping[int, str], constants: Constants) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self._names, self._constants = names, constants
        self._labels: dict[int, tuple[Tensor, _Label]] = {}  # the tensor, so that its id stays its

    def end(self, outputs: list[Tensor]) -> None:
        """Marks what stands between the last matrix and the output."""
        for out in outputs:
            label = self._label(out)
            for i in label.pending:
                self.seen[i].at_output = True
            for each in self.seen:
                if each.into is not None and each.into == label.made_by:
                    each.at_output = True

    def _label(self, tensor: Any) -> _Label:
        return self._labels.get(id(tensor), (None, _Label()))[1]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if name == "__get__" or not tensors:
            weights = [self._names[id(x)] for x in tensors if id(x) in self._names]
            if weights and isinstance(out, Tensor):  # weight.T
                self._names = {**self._names, id(out): weights[0]}
                self._labels[id(out)] = (out, _Label())
                return out
        if self._constants.made(name, func, args, tensors, out):
            return out
        if name in TIMES | DIVIDED:
            args = self._constants.plain(args, first=name in DIVIDED)
            tensors = [x for x in args if isinstance(x, Tensor)]
        known = [(x, self._label(x).length) for x in tensors]
        length = length_of(name, args, kwargs or {}, known, out)
        label = replace(self._made(name, args, tensors), length=length)
        if length is not None and not any(each and each.kind == "unit" for _, each in known):
            label = replace(label, pending=frozenset())  # a length takes what came before along
        if name == "sum" and not label.shares:
            label = self._summed_up(label, tensors[0].numel() // max(out.numel(), 1))
        for each in tree_leaves(out):
            if isinstance(each, Tensor) and id(each) not in self._names:
                self._labels[id(each)] = (each, label)
        return out

    def _summed_up(self, label: _Label, length: int) -> _Label:
        """What is known of a sum; the numbers before it make up for its length, too."""
        for i in label.pending:
            self.seen[i].over *= length
        return replace(label, over=label.over * length)

    def _made(self, name: str, args: Any, tensors: list[Tensor]) -> _Label:
        weights = [self._names[id(x)] for x in tensors if id(x) in self._names and x.ndim >= 2]
        data = [self._label(x) for x in tensors if id(x) not in self._names]
        pending = frozenset[int]().union(*(label.pending for label in data))
        over, shares = math.prod(each.over for each in data), any(each.shares for each in data)
        if name == "index_copy" and weights:  # a table with rows that are trained in their place
            return _Label(weights[0], "weight")
        if name == "embedding":
            weights += [str(label.made_by) for label in data if label.kind == "weight"]
        if name == "embedding" and weights:
            return _Label(weights[0], "embedding")
        if name in _MAPS or name in _ATTENTION or name in _RECURRENT:
            weights += [str(label.made_by) for label in data if label.kind == "weight"]
            weights = weights if name in _MAPS else []
            into = weights[0] if weights else ""
            for i in pending:
                self.seen[i].into = into
            units = [each.length for each in data if each.length and each.length.unit]
            self.seen += [Seen(each.value, None, "", into) for each in units]
            unit = len(self.seen) - 1 if units else None
            averages = name in _ATTENTION or any(label.shares for label in data)
            if not weights and not averages and name in _MAPS:
                return _Label(over=over * ops.contracted(name, args))
            return _Label(weights[0], "linear", unit=unit) if weights else _Label()
        exponential = name.removesuffix("_") in ops.EXPONENTIALS
        # A number in a phase or an exponent is none that multiplies what comes of it.
        powers = name == "pow" and not isinstance(args[0], Tensor)
        bent = powers or name in _BENT or name.removesuffix("_") in _BENT
        if exponential or bent or any(part in name for part in _NORMALISED):
            for i in pending if exponential or "softmax" in name else ():
                self.seen[i].softmax = True
            return _Label(shares="softmax" in name)
        if weights and len(tensors) == 1 and name in TIMES | DIVIDED | _VIEWS:
            data = [_Label(weights[0], "weight")]
        if name in _SUMS and len(data) > 1:
            for i in pending:
                self.seen[i].summed = True
        made = next((label for label in data if label.made_by is not None), _Label())
        number = next((x for x in args if isinstance(x, int | float)), None)
        # What multiplies a length, or what was divided by one, is a number of the norm's.
        measured = any(each.length and each.length.kind not in ENTRIES for each in data)
        alone = len(tensors) == 1 and not chooses(tensors[0])  # rows are counted
        if alone and number is not None and name in TIMES | DIVIDED and not measured:
            value = float(number) if name in TIMES else 1 / float(number) if number else 0.0
            if made.unit is not None:  # it may make up for the length of one
                self.seen[made.unit].value *= value
                return replace(made, pending=pending, length=None)
            self.seen.append(Seen(value, made.made_by, made.kind, over=over))
            pending |= {len(self.seen) - 1}
        elif name in TIMES | DIVIDED and len(tensors) > 1 and len(data) != 1 and not weights:
            return _Label(pending=pending, over=over, shares=shares)
        return _Label(made.made_by, made.kind, pending, unit=made.unit, over=over, shares=shares)
