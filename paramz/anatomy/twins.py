"""Twins: which module of the base stands for a module of the target, if their numbers differ.

Width changes shapes, but depth and experts change how many modules a numbered container holds, and
with that the names. With 12 blocks on a base of 4, the twin of blocks 3 to 5 is the base's block 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from torch import nn

from paramz.anatomy.paths import join, stem, unnumbered


def match_modules(target: nn.Module, base: nn.Module) -> dict[str, str]:
    """Path of every module of the target -> path of its twin in the base.

    Children of the same name are twins. In a numbered container of another length, the middle of
    child i of n takes the child of its own kind (same class and parameter names) whose middle is
    nearest at the same relative depth; so do blocks that are attributes with a number, as layer0.
    Modules without a twin are left out.

    >>> stack = lambda n: nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))
    >>> match_modules(stack(4), stack(2))
    {'': '', '0': '0', '1': '0', '2': '1', '3': '1'}
    """
    matched: dict[str, str] = {}
    kind = cache(signature)
    first = {id(module): path for path, module in base.named_modules()}

    def pair(one: nn.Module, other: nn.Module, path: str, twin: str) -> None:
        matched[path] = first[id(other)]  # which may stand in a list several times
        children, others = _children(one), _children(other)
        places = {n: group for group in _resized(children, others) for n in group[0]}
        for name, child in children.items():
            chosen: str | None = name
            if name in places:
                names, there = places[name]
                place = (names.index(name) + 0.5) * len(there) / len(names) - 0.5
                alike = [n for n in there if kind(others[n]) == kind(child)]
                at = there.index
                chosen = min(alike, key=lambda n: (abs(at(n) - place), at(n)), default=None)
            if chosen in others:
                pair(child, others[chosen], join(path, name), join(twin, chosen))

    pair(target, base, "", "")
    return matched


def resized_series(
    target: nn.Module, base: nn.Module
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Where the target has more or fewer children of a series than the base: the path, and both.

    >>> stack = lambda n: nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))
    >>> list(resized_series(stack(3), stack(2)))
    [('', ['0', '1', '2'], ['0', '1'])]
    """
    for path, twin in match_modules(target, base).items():
        one, other = (_children(m.get_submodule(p)) for m, p in ((target, path), (base, twin)))
        for names, there in _resized(one, other):
            yield path, names, there


def resized(target: nn.Module, base: nn.Module) -> list[str]:
    """Series of modules of the target that have another length in the base, as text.

    >>> stack = lambda n: nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))
    >>> resized(stack(4), stack(2))
    ['the model has 4 modules and the base 2']
    """
    found = []
    for path, names, there in resized_series(target, base):
        what = f"of {stem(names[0])}#" if stem(names[0]) else "modules"
        found.append(f"{path or 'the model'} has {len(names)} {what} and the base {len(there)}")
    return found


def _children(module: nn.Module) -> dict[str, nn.Module]:
    return {name: child for name, child in module._modules.items() if child is not None}


def _numbered(children: Mapping[str, nn.Module]) -> bool:
    """Whether all are numbers, or one name with numbers behind it, as expert_0 and expert_1."""
    return len({stem(name) for name in children}) == 1 and len(_series(children)) == 1


def _series(children: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """The children with a number at the end of their names, by what is before it and in order."""
    found: dict[str, list[str]] = {}
    for name in children:
        if name[-1:].isdigit():
            found.setdefault(stem(name), []).append(name)
    return {
        key: sorted(names, key=lambda n: int(n.removeprefix(key))) for key, names in found.items()
    }


def _resized(
    one: Mapping[str, nn.Module], other: Mapping[str, nn.Module]
) -> list[tuple[list[str], list[str]]]:
    """Series of children of which there are more in one module than in the other.

    Beside other children only modules with parts of their own may be blocks: fc1 and fc2 are not.
    """
    series, others = _series(one), _series(other)
    alone = _numbered(one) and _numbered(other)
    return [
        (names, others[key])
        for key, names in series.items()
        if len(names) != len(others.get(key, names))
        and (
            alone
            or all(one[name]._modules for name in names)
            and all(other[name]._modules for name in others[key])
        )
    ]


def signature(module: nn.Module) -> tuple[str, frozenset[str]]:
    """What modules of one kind have in common: their class and the names of their parameters."""
    return type(module).__name__, _names(module)


def _names(module: nn.Module) -> frozenset[str]:
    """The names of a module's parameters without numbers: a list of equal blocks has those of one.

    It is asked for every expert of every block, so it is gathered from the modules up.
    """
    found = {unnumbered(name) for name, one in module._parameters.items() if one is not None}
    for name, child in module._modules.items():
        if child is not None:
            found.update([join(unnumbered(name), below) for below in _names(child)])
    return frozenset(found)
