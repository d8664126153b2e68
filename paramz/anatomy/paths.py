"""Names of modules and parameters as paths: join them, split them, compare them without numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

_NUMBER = re.compile(r"\b\d+\b")


def join(path: str, name: str) -> str:
    """The path of a child: ``name`` itself in the model's root.

    >>> join("", "head"), join("layers.0", "weight")
    ('head', 'layers.0.weight')
    """
    return f"{path}.{name}" if path else name


def split(name: str) -> tuple[str, str]:
    """The path of the module that owns a name, and the name in it.

    >>> split("layers.0.weight"), split("weight")
    (('layers.0', 'weight'), ('', 'weight'))
    """
    path, _, local = name.rpartition(".")
    return path, local


def above(name: str) -> Iterator[str]:
    """The paths of all modules that a name lies in, from the nearest to the root.

    >>> list(above("layers.0.weight"))
    ['layers.0', 'layers', '']
    """
    while name:
        name, _ = split(name)
        yield name


def unnumbered(name: str) -> str:
    """The name with ``#`` for the numbers of blocks: equal for the same tensor of every block.

    >>> unnumbered("layers.12.fc1.weight")
    'layers.#.fc1.weight'
    """
    return _NUMBER.sub("#", name)


def is_number(name: str) -> bool:
    """Whether a child is one of a numbered list, as ``layers.0`` is of ``layers``."""
    return name.rpartition(".")[2].isdigit()


def stem(name: str) -> str:
    """What stands before the number at the end of a child's name; all of it without a number.

    >>> stem("layer12"), stem("7"), stem("head")
    ('layer', '', 'head')
    """
    return name.rstrip("0123456789")


def pattern(name: str) -> str:
    """A regular expression for this name in every block, to paste into ``roles=`` or `Branches`.

    >>> pattern("layers.0.weight")
    'layers[.][0-9]+[.]weight'
    """
    return "[.]".join("[0-9]+" if part.isdigit() else part for part in name.split("."))


def pattern_of(name: str, alike: Collection[str], others: Iterable[str]) -> str:
    """`pattern` of a name, or the name alone where that would name others of another kind, too.

    Args:
        name: the name.
        alike: those that may be named with it.
        others: all names that there are.

    >>> pattern_of("0.weight", ["0.weight"], ["0.weight", "2.weight"])
    '0[.]weight'
    """
    general = pattern(name)
    named = [other for other in others if re.search(f"{general}$", other)]
    return general if set(named) <= {*alike, name} else "[.]".join(name.split("."))
