"""Repeated blocks in one line: of the plan's table, of notes, and of problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_NUMBERS = re.compile(r"(\d+)")


def pool_std(lines: list[tuple[str, ...]], at: int) -> list[tuple[str, ...]]:
    """The range of measured stds for the same tensor of repeated blocks: each is a sample.

    Args:
        lines: of a table, the tensor's name first.
        at: the column of stds.
    """
    keys, found = [], dict[tuple[Any, ...], set[str]]()
    for line in lines:
        power, equals, number = line[at].rpartition(" = ")
        key = _NUMBERS.sub("#", line[0]), line[1:at], power + equals, line[at + 1 :]
        keys.append(key)
        if (numbers := found.get(key)) is None:
            found[key] = {number}
        else:
            numbers.add(number)
    if all(len(numbers) == 1 for numbers in found.values()):
        return lines
    pooled = []
    for line, key in zip(lines, keys, strict=True):
        numbers = found[key]
        if len(numbers) > 1 and not any(number.startswith("all ") for number in numbers):
            low, high = min(numbers, key=float), max(numbers, key=float)
            line = (*line[:at], f"{key[2]}{low} to {high}", *line[at + 1 :])
        pooled.append(line)
    return pooled


def collapse(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """One line for the same tensor of repeated blocks: layers.{0..3}.mlp.weight."""
    groups: dict[tuple[str, tuple[str, ...]], list[list[str]]] = {}
    for line in lines:
        parts = _NUMBERS.split(line[0])
        key = "#".join(parts[::2]), line[1:]
        if (numbers := groups.get(key)) is None:
            numbers = groups[key] = []
        numbers.append(parts[1::2])
    collapsed = []
    for (pattern, rest), numbers in groups.items():
        for spans in _products([tuple(map(int, each)) for each in numbers]):
            name = pattern
            for span in spans:
                name = name.replace("#", span, 1)
            collapsed.append((name, *rest))
    return collapsed


def _products(numbers: Sequence[tuple[int, ...]]) -> list[list[str]]:
    """The numbers in names as spans of which every combination is there, in as few lists.

    Blocks may differ in length: 1.1, 2.1 and 2.2 are not {1..2}.{1..2}.
    """
    if not numbers[0]:
        return [[]]
    behind: dict[int, dict[tuple[int, ...], None]] = {}
    for first, *others in numbers:
        behind.setdefault(first, {})[tuple(others)] = None
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for first, found in behind.items():
        alike.setdefault(tuple(sorted(found)), []).append(first)
    return [
        [_span(sorted(firsts)), *spans]
        for found, firsts in alike.items()
        for spans in _products(found)
    ]


def _span(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if first == last:
        return str(first)
    if numbers == list(range(first, last + 1)):
        return f"{{{first}..{last}}}"
    return "{" + ",".join(map(str, numbers)) + "}"


def collapse_notes(notes: Sequence[str]) -> list[str]:
    """One note for the same module of repeated blocks; a note is ``path: what``."""
    return [": ".join(line) for line in collapse([tuple(n.split(": ", 1)) for n in notes])]
