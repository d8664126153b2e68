"""Where the rows of a fused map lie that stay while its other rows grow with width.

Shapes tell how many rows stay, not which. A run tells: rows that are split off and used on their
own, as many in the base as in the wider probe, are those. So each row carries its number through
the run of either probe, and what is done with it is compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from paramz.anatomy.carried import Uses, uses_of
from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.probes import Probes
from paramz.anatomy.runs import on_meta, tensors_in
from paramz.anatomy.slices import Shapes

# What of a row: it grows with the others, or stays, and a norm takes what it makes.
_GROWS, _STAYS, _NORMED = range(3)

# That of a row, and by which uses it stays.
_Label = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that stay.

    Attributes:
        start, stop: where they lie in the target.
        base_start: where they begin in the base.
        latent: a norm takes what they make first.
        part: which of the maps that stay they are of: rows of one map are used together.
    """

    start: int
    stop: int
    base_start: int
    latent: bool
    part: int = 0


def find_spans(
    probes: Probes,
    slices: Mapping[str, Mapping[int, int]],
    shapes: Mapping[str, Shapes],
    example: Any = None,
    model: nn.Module | None = None,
) -> dict[str, tuple[Span, ...]]:
    """Name -> the rows that stay, in their order; without tensors of which no run tells.

    Args:
        probes: base and wider model. Both run once if a tensor with slices grows on both sides: of
            others all rows start alike.
        slices: those that `find_slices` found, by names in the target.
        shapes: name -> the tensor's shapes in the base, the wider probe and the target.
        example: what to call the model with; inputs are guessed if it is left out.
        model: the target, which runs as well, on meta, if a tensor's twin is one of another block:
            the two may be laid out differently.

    >>> class Fused(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.qk = nn.Linear(width, width + 2)
    ...     def forward(self, x):
    ...         q, k = self.qk(x).split([x.shape[-1], 2], -1)
    ...         return (q.unflatten(-1, (-1, 2)) * k.unsqueeze(-2)).sum(-1)
    >>> shapes = {"qk.weight": ((6, 4), (10, 8), (34, 32))}
    >>> find_spans(Probes(Fused(4), Fused(8)), {"qk.weight": {0: 2}}, shapes)
    {'qk.weight': (Span(start=32, stop=34, base_start=4, latent=False, part=0),)}
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
    uses = _uses([(probes.base, axes), (probes.wider, axes)], example)
    if not uses:
        return {}
    placed = _spans(uses[0], uses[1], wanted)
    if model is None or all(name == each.twin for name, each in wanted.items()):
        return placed
    with on_meta(model):
        own = _uses([(model, {name: each.axis for name, each in wanted.items()})], example)
    return {
        name: spans
        for name, spans in placed.items()
        if own and _agrees(spans, own[0].get(name), wanted[name], uses)
    }


def _uses(
    models: Sequence[tuple[nn.Module, Mapping[str, int]]], example: Any
) -> list[dict[str, Uses]]:
    """What a run of each model does with the rows of its tensors; nothing if one does not run."""
    for kept in (2, None):  # code that counts its blocks needs all of them
        for inputs in zip(*(_inputs(model, example) for model, _ in models), strict=False):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    return [
                        uses_of(model, axes, given, kept)
                        for (model, axes), given in zip(models, inputs, strict=True)
                    ]
            except Exception:  # any model's own code, on inputs that it may not like
                continue
    return []


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
    found = {}
    for name, each in wanted.items():
        if each.twin not in base or each.twin not in wider:
            continue
        labels = _labels(base[each.twin], wider[each.twin], each.stays)
        if labels is not None and (spans := _placed(labels, each.stays, each.size)):
            found[name] = spans
    return found


def _agrees(
    spans: tuple[Span, ...], own: Uses | None, fused: _Fused, probes: Sequence[Mapping[str, Uses]]
) -> bool:
    """Whether the rows that a twin has are those that the target's own run uses apart."""
    others = [uses[fused.twin] for uses in probes if fused.twin in uses]
    other = next((each for each in others if own and each.size != own.size), None)
    told = None if own is None or other is None else _told(own, other, fused.stays)
    rows = {row for span in spans for row in range(span.start, span.stop)}
    return told is not None and rows == {n for n, (kind, _) in enumerate(told) if kind != _GROWS}


def _labels(base: Uses, wider: Uses, number: int) -> tuple[_Label, ...] | None:
    """What each row of the base is; None where the two runs do not agree on that."""
    one, two = _told(base, wider, number), _told(wider, base, number)
    if one is None or two is None:
        return None
    runs = [[(label, len(list(rows))) for label, rows in groupby(each)] for each in (one, two)]
    small, large = base.size - number, wider.size - number
    for (label, rows), (other, more) in zip_longest(*runs, fillvalue=(None, 0)):
        grows = label is not None and label[0] == _GROWS
        fits = rows * large == more * small if grows else rows == more
        if label != other or not fits:
            return None
    return tuple(one)


def _told(uses: Uses, others: Uses, number: int) -> list[_Label] | None:
    if len(uses.together) != len(others.together):
        return None
    apart: dict[int, tuple[int, ...]] = {}
    for use, (rows, more) in enumerate(zip(uses.together, others.together, strict=True)):
        if len(rows) == len(more):
            apart.update({row: (*apart.get(row, ()), use) for row in rows})
    if len(apart) != number:
        return None
    return [
        (_NORMED if row in uses.latent else _STAYS, apart[row]) if row in apart else (_GROWS, ())
        for row in range(uses.size)
    ]


def _placed(labels: tuple[_Label, ...], number: int, size: int) -> tuple[Span, ...]:
    """The rows that stay, where the growing ones around them have the target's size."""
    grown, rest = size - number, len(labels) - number
    maps = list(dict.fromkeys(label for label in labels if label[0] != _GROWS))
    spans, start, before = [], 0, 0
    for label, group in groupby(labels):
        rows = len(list(group))
        if label[0] == _GROWS:
            if rows * grown % rest:
                return ()
            start += rows * grown // rest
        else:
            latent = label[0] == _NORMED
            spans.append(Span(start, start + rows, before, latent, maps.index(label)))
            start += rows
        before += rows
    return tuple(spans)
