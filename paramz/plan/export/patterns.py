r"""Patterns of tensor names: as few as possible, and each exact on the names of the plan.

Numbers between dots are indices of repeated blocks, so ``layers.0.mlp.weight`` becomes
``layers\.\d+\.mlp\.weight`` if the same tensor of every block is in one group, and
``layers\.(?:0|2)\.mlp\.weight`` if it is not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import product


def regexes(groups: Sequence[Sequence[str]], between: str = "") -> list[str]:
    r"""One regular expression per group that matches its names as a whole, and no others.

    Args:
        groups: names, each in one group.
        between: a regular expression for what wrappers put behind the number of a block.

    >>> regexes([["h.0.up.weight", "h.1.up.weight", "h.0.down.weight", "h.1.down.weight"], ["out"]])
    ['h\\.\\d+\\.(?:up|down)\\.weight', 'out']
    """
    everyone = [name for group in groups for name in group]
    whole = _by_template(everyone)
    found = []
    for group in groups:
        alternatives: dict[tuple[str, str], list[str]] = defaultdict(list)
        for template, numbers in _by_template(group).items():
            every = len(numbers) == len(whole[template])
            for head, middle, tail in _pieces(template, numbers, every, between):
                alternatives[head, tail].append(middle)
        parts = [head + _nested(middles) + tail for (head, tail), middles in alternatives.items()]
        pattern = "|".join(parts)
        hit = {name for name in everyone if re.fullmatch(pattern, name)}
        # Names may look like wrappers, or one index like another: then spell them out.
        found.append(pattern if hit == set(group) else "|".join(map(re.escape, group)))
    return found


def globs(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lists of wildcards, one list per group, each of which matches some of its names only.

    The star of a wildcard matches dots, too, so every one is tried on all names.

    >>> globs([["h.0.up.weight", "h.1.up.weight"], ["out.weight"]])
    [['h.*.up.weight'], ['out.weight']]
    """
    everyone = [name for group in groups for name in group]
    whole = _by_template(everyone)
    found = []
    for group in groups:
        patterns: list[str] = []
        for template, numbers in _by_template(group).items():
            names = [_filled(template, each) for each in numbers]
            tried = [_glob(template, star) for star in ("*", "[0-9]*")]
            fits = [
                glob
                for glob in tried
                if len(numbers) == len(whole[template])
                and {name for name in everyone if fnmatchcase(name, glob)} == set(names)
            ]
            patterns += fits[:1] or [_glob(name, "*") for name in names]
        found.append(patterns)
    return found


def _by_template(names: Sequence[str]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Components of a name, with a # for every number, and the numbers that there are."""
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for name in names:
        parts = name.split(".")
        template = tuple("#" if part.isdecimal() else part for part in parts)
        found[template].append(tuple(part for part in parts if part.isdecimal()))
    return found


def _pieces(
    template: tuple[str, ...], numbers: Sequence[tuple[str, ...]], every: bool, between: str
) -> list[tuple[str, str, str]]:
    """Everything up to the last number, the rest without the last component, and that."""
    columns = [list(dict.fromkeys(column)) for column in zip(*numbers, strict=True)]
    if every:
        filled = [[r"\d+"] * len(columns)]
    elif set(product(*columns)) == set(numbers):
        filled = [[_either(column) for column in columns]]
    else:
        filled = [list(each) for each in numbers]
    last = max((i for i, part in enumerate(template) if part == "#"), default=-1)
    made = []
    for each in filled:
        values = iter(each)
        parts = [next(values) if part == "#" else re.escape(part) for part in template]
        head = "".join(
            f"{part}\\." + (between if template[i] == "#" else "")
            for i, part in enumerate(parts[: last + 1])
        )
        rest = parts[last + 1 :]
        if not rest:  # the name ends with its number, as those of a ParameterList do
            made.append(("", r"\.".join(parts), ""))
        elif len(rest) == 1:
            made.append((head, rest[0], ""))
        else:
            made.append((head, r"\.".join(rest[:-1]), f"\\.{rest[-1]}"))
    return made


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _nested(paths: Sequence[str]) -> str:
    r"""Alternatives with what they begin with in front: ``attn\.(?:q|k)`` for attn.q and attn.k."""
    by_first: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        first, _, rest = path.partition(r"\.")
        by_first[first].append(rest)
    parts = []
    for first, rests in by_first.items():
        inside = [rest for rest in dict.fromkeys(rests) if rest]
        parts += [first] if "" in rests else []
        parts += [f"{first}\\.{_nested(inside)}"] if inside else []
    return _either(parts)


def _glob(template: Sequence[str] | str, star: str) -> str:
    parts = template.split(".") if isinstance(template, str) else template
    return ".".join(star if part == "#" else re.sub(r"([*?[])", r"[\1]", part) for part in parts)


def _filled(template: Sequence[str], numbers: Sequence[str]) -> str:
    values = iter(numbers)
    return ".".join(next(values) if part == "#" else part for part in template)
