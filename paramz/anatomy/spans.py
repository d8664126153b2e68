"""Where the rows of a fused map lie that stay while its other rows grow with width.

Shapes tell how many rows stay, not which. A run tells: rows that are split off and used on their
own, as many in the base as in the wider probe, are those. So each row carries its number through
the run of either probe, and what is done with it is compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from paramz.anatomy.carried import Uses, uses_of
from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.paths import unnumbered
from paramz.anatomy.probes import Probes
from paramz.anatomy.runs import tensors_in
from paramz.anatomy.slices import Shapes

# What of a row: it grows with the others, or stays, and a norm takes what it makes.
_GROWS, _STAYS, _NORMED = range(3)


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that stay.

    Attributes:
        start, stop: where they lie in the target.
        base_start: where they begin in the base.
        latent: a norm takes what they make first.
    """

    start: int
    stop: int
    base_start: int
    latent: bool


def find_spans(
    probes: Probes,
    slices: Mapping[str, Mapping[int, int]],
    shapes: Mapping[str, Shapes],
    example: Any = None,
) -> dict[str, tuple[Span, ...]]:
    """Name -> the rows that stay, in their order; without tensors of which no run tells.

    Args:
        probes: base and wider model. Both run once if a tensor with slices grows on both sides: of
            others all rows start alike.
        slices: those that `find_slices` found, by names in the target.
        shapes: name -> the tensor's shapes in the base, the wider probe and the target.
        example: what to call the model with; inputs are guessed if it is left out.

    >>> class Fused(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.qk = nn.Linear(width, width + 2)
    ...     def forward(self, x):
    ...         q, k = self.qk(x).split([x.shape[-1], 2], -1)
    ...         return (q.unflatten(-1, (-1, 2)) * k.unsqueeze(-2)).sum(-1)
    >>> shapes = {"qk.weight": ((6, 4), (10, 8), (34, 32))}
    >>> find_spans(Probes(Fused(4), Fused(8)), {"qk.weight": {0: 2}}, shapes)
    {'qk.weight': (Span(start=32, stop=34, base_start=4, latent=False),)}
    """
    wanted: dict[str, _Fused] = {}
    for name, found in slices.items():
        base, wider, target = shapes[name]
        grown = [axis for axis, (b, w) in enumerate(zip(base, wider, strict=True)) if b != w]
        if len(found) == 1 and len(grown) > 1:
            ((axis, stays),) = found.items()
            wanted[name] = _Fused(axis, stays, target[axis], probes.twin_name(name) or name)
    if not wanted:
        return {}
    axes = {each.twin: each.axis for each in wanted.values()}
    for kept in (2, None):  # code that counts its blocks needs all of them
        pairs = (_inputs(model, example) for model in (probes.base, probes.wider))
        for inputs, larger in zip(*pairs, strict=False):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    seen = uses_of(probes.base, axes, inputs, kept)
                    wide = uses_of(probes.wider, axes, larger, kept)
            except Exception:  # any model's own code, on inputs that it may not like
                continue
            return _spans(seen, wide, wanted)
    return {}


def _inputs(model: nn.Module, example: Any) -> Iterator[Any]:
    """Inputs that it may take; of those that the user gave one row first, which shows as much."""
    for inputs in possible_inputs(model, example):
        if example is not None:
            yield _first_row(inputs)
        yield inputs


def _first_row(inputs: Any) -> Any:
    batch = next((x.shape[0] for x in tensors_in(inputs) if x.ndim), None)

    def cut(x: torch.Tensor) -> torch.Tensor:
        return x[:1] if x.ndim and x.shape[0] == batch else x

    return tree_map_only(torch.Tensor, cut, inputs)


@dataclass(frozen=True)
class _Fused:
    """A tensor with slices: the axis, how many of its rows stay, its size, and its twin's name."""

    axis: int
    stays: int
    size: int
    twin: str


def _spans(
    base: Mapping[str, Uses], wider: Mapping[str, Uses], wanted: Mapping[str, _Fused]
) -> dict[str, tuple[Span, ...]]:
    kinds: dict[str, set[tuple[int, ...] | None]] = {}
    for each in wanted.values():
        if each.twin in base and each.twin in wider:
            labels = _labels(base[each.twin], wider[each.twin], each.stays)
            kinds.setdefault(unnumbered(each.twin), set()).add(labels)
    found = {}
    for name, each in wanted.items():
        alike = kinds.get(unnumbered(each.twin), set())  # of a block that did not run, the others'
        labels = next(iter(alike)) if len(alike) == 1 else None
        if labels is not None and (spans := _placed(labels, each.stays, each.size)):
            found[name] = spans
    return found


def _labels(base: Uses, wider: Uses, number: int) -> tuple[int, ...] | None:
    """What each row of the base is; None where the two runs do not agree on that."""
    one, two = _told(base, wider, number), _told(wider, base, number)
    if one is None or two is None:
        return None
    runs = [[(label, len(list(rows))) for label, rows in groupby(each)] for each in (one, two)]
    small, large = base.size - number, wider.size - number
    for (label, rows), (other, more) in zip_longest(*runs, fillvalue=(-1, 0)):
        fits = rows * large == more * small if label == _GROWS else rows == more
        if label != other or not fits:
            return None
    return tuple(one)


def _told(uses: Uses, others: Uses, number: int) -> list[int] | None:
    if len(uses.together) != len(others.together):
        return None
    alone = {
        row
        for rows, more in zip(uses.together, others.together, strict=True)
        if len(rows) == len(more)
        for row in rows
    }
    if len(alone) != number:
        return None
    return [
        (_NORMED if row in uses.latent else _STAYS) if row in alone else _GROWS
        for row in range(uses.size)
    ]


def _placed(labels: tuple[int, ...], number: int, size: int) -> tuple[Span, ...]:
    """The rows that stay, where the growing ones around them have the target's size."""
    grown, rest = size - number, len(labels) - number
    spans, start, before = [], 0, 0
    for label, group in groupby(labels):
        rows = len(list(group))
        if label == _GROWS:
            if rows * grown % rest:
                return ()
            start += rows * grown // rest
        else:
            spans.append(Span(start, start + rows, before, label == _NORMED))
            start += rows
        before += rows
    return tuple(spans)
