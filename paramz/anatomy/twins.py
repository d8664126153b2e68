"""Twins: which module of the base stands for a module of the target, if their numbers differ.

Width changes shapes, but depth and experts change how many modules a numbered container holds, and
with that the names. With 12 blocks on a base of 4, the twin of blocks 3 to 5 is the base's block 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from torch import nn

from paramz.anatomy.paths import join, unnumbered


def match_modules(target: nn.Module, base: nn.Module) -> dict[str, str]:
    """Path of every module of the target -> path of its twin in the base.

    Children of the same name are twins. In a numbered container of another length, the middle of
    child i of n takes the child of its own kind (same class and parameter names) whose middle is
    nearest at the same relative depth. Modules without a twin are left out.

    >>> stack = lambda n: nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))
    >>> match_modules(stack(4), stack(2))
    {'': '', '0': '0', '1': '0', '2': '1', '3': '1'}
    """
    matched: dict[str, str] = {}
    kind = cache(signature)

    def pair(one: nn.Module, other: nn.Module, path: str, twin: str) -> None:
        matched[path] = twin
        children, others = _children(one), _children(other)
        resized = len(children) != len(others) and _numbered(children) and _numbered(others)
        for name, child in children.items():
            chosen: str | None = name
            if resized:
                place = (_number(name) + 0.5) * len(others) / len(children) - 0.5
                alike = [n for n, m in others.items() if kind(m) == kind(child)]
                chosen = min(
                    alike, key=lambda n: (abs(_number(n) - place), _number(n)), default=None
                )
            if chosen in others:
                pair(child, others[chosen], join(path, name), join(twin, chosen))

    pair(target, base, "", "")
    return matched


def resized(target: nn.Module, base: nn.Module) -> list[str]:
    """Numbered containers of the target that have another length in the base, as text.

    >>> stack = lambda n: nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))
    >>> resized(stack(4), stack(2))
    ['the model has 4 modules and the base 2']
    """
    found = []
    for path, twin in match_modules(target, base).items():
        one, other = (_children(m.get_submodule(p)) for m, p in ((target, path), (base, twin)))
        if len(one) != len(other) and _numbered(one) and _numbered(other):
            found.append(f"{path or 'the model'} has {len(one)} modules and the base {len(other)}")
    return found


def _children(module: nn.Module) -> dict[str, nn.Module]:
    return {name: child for name, child in module._modules.items() if child is not None}


def _numbered(children: Mapping[str, nn.Module]) -> bool:
    """Whether all are numbers, or one name with numbers behind it, as expert_0 and expert_1."""
    stems = {name.rstrip("0123456789") for name in children}
    return len(stems) == 1 and all(name[-1:].isdigit() for name in children)


def _number(name: str) -> int:
    return int(name[len(name.rstrip("0123456789")) :])


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
