"""Residual branches that a user declares, and what such a declaration finds in a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import takewhile

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.tensors import listed


@dataclass(frozen=True, slots=True)
class Branches:
    """Residual branches, declared by regular expressions (``re.search``).

    Attributes:
        inside: matches names of the parameters inside branches. The distinct texts that it matches
            are the blocks, and their number is the depth. None where paramz knows the blocks.
        ends: matches paths of the modules whose output is that of a branch. A linear layer or a
            norm takes the branch factor into its weights, any other module gets a hook. None where
            paramz knows the blocks.
        runs: where blocks are shared and run several times, the attribute of the model that counts
            all runs, such as ``"depth"`` or ``"config.num_hidden_layers"``.

    Raises:
        ValueError: one of inside and ends is given without the other, or nothing is.

    >>> declared = Branches(inside=r"^layers[.][0-9]+[.]f", ends=r"[.]f[.]2$")
    >>> looped = Branches(runs="depth")
    """

    inside: str | None = None
    ends: str | None = None
    runs: str | None = None

    def __post_init__(self) -> None:
        if (self.inside is None) != (self.ends is None):
            raise ValueError(
                f"Branches(inside={self.inside!r}, ends={self.ends!r}): give both, or neither "
                "where paramz knows the blocks"
            )
        if self.inside is None and self.runs is None:
            raise ValueError("Branches() declares nothing: give inside= and ends=, or runs=")


def require_declaration(given: object) -> None:
    """Refuse what stands for `Branches` and is none, such as a dict of what it takes.

    Raises:
        TypeError: it is neither a `Branches` nor None; the message says how to write it.
    """
    if given is None or isinstance(given, Branches):
        return
    known = {field.name for field in fields(Branches)}
    said = "inside=r'^<regex of parameter names>', ends=r'<regex of module paths>$'"
    if isinstance(given, Mapping) and given and known >= set(given):
        said = ", ".join(f"{name}={value!r}" for name, value in given.items())
    raise TypeError(
        f"branches={given!r}: residual branches are declared as branches=paramz.Branches({said}). "
        "(What multiplies single modules goes into factors={pattern: value}.)"
    )


@dataclass(frozen=True, slots=True)
class FoundBlocks:
    """What was found in one model: blocks by parameter, blocks by end, and how often each runs.

    Attributes:
        blocks: parameter name -> path of its block.
        modules: path of an end -> path of its block.
        runs: path of a block -> how often it stands in the model.
    """

    blocks: dict[str, str]
    modules: dict[str, str]
    runs: dict[str, int]


def declared_blocks(model: nn.Module, inside: str, ends: str) -> FoundBlocks:
    """What a declaration finds in a model.

    Args:
        model: the model; only names are looked at.
        inside: as in `Branches`.
        ends: as in `Branches`.

    Raises:
        ValueError: one of the two matches nothing, or takes the experts of a layer for blocks.
    """
    blocks = {
        name: match.group(0).rstrip(".")
        for name, _ in model.named_parameters()
        if (match := re.search(inside, name))
    }
    paths = [path for path, _ in model.named_modules() if path and re.search(ends, path)]
    for what, regex, found, there in (
        ("inside", inside, blocks, [n for n, _ in model.named_parameters()]),
        ("ends", ends, paths, [n for n, _ in model.named_modules() if n]),
    ):
        if not found:
            raise ValueError(
                f"Branches({what}={regex!r}) matches nothing; there are {', '.join(there[:12])}"
            )
    distinct = list(dict.fromkeys(blocks.values()))
    for one in distinct:
        _require_no_expert(one, inside)
    # A shared block has its parameters under several names, of which the first one counts.
    texts: dict[str, set[str]] = {block: {block} for block in distinct}
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        match, block = re.search(inside, name), blocks.get(first[id(parameter)])
        if match and block is not None:
            texts[block].add(match.group(0).rstrip("."))
    return FoundBlocks(
        blocks,
        {path: _block_of(path, distinct, inside) for path in paths},
        {block: len(said) for block, said in texts.items()},
    )


def _require_no_expert(block: str, inside: str) -> None:
    many = f"{names.EXPERT_CONTAINER}."
    before, found, _ = f".{block}".partition(f".{many}")
    if found:
        raise ValueError(
            f"Branches(inside={inside!r}) takes {block} for a block, so experts would count as "
            f"depth, and they are beside each other. End what it matches before {many!r}: at "
            f"{before[1:] or 'the start'}"
        )


def _block_of(path: str, blocks: list[str], inside: str) -> str:
    """The block that the end of a branch is in: the nearest one, if names do not tell."""
    match = re.search(inside, f"{path}.")
    text = match.group(0).rstrip(".") if match else ""
    return text if text in blocks else max(blocks, key=lambda block: _in_common(path, block))


def _in_common(one: str, other: str) -> int:
    """How many of the first names of two paths are the same."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def require_inside(
    declared: Branches, found: FoundBlocks, parameters: Mapping[str, list[str]], model: nn.Module
) -> None:
    """Refuse a declaration in which parameters at an end are inside no branch.

    They would keep the size that they have, and the branch with them.

    Args:
        declared: what the user has declared.
        found: what it finds in the model.
        parameters: path of an end -> the names of those that its output is linear in.
        model: the model.

    Raises:
        ValueError: there are such parameters.
    """
    known = dict(model.named_parameters())
    outside = [
        n for own in parameters.values() for n in own if n in known and n not in found.blocks
    ]
    if outside:
        raise ValueError(
            f"Branches(ends={declared.ends!r}) names the layer of {listed(outside, 2)}, which "
            f"inside={declared.inside!r} does not match, so it would not take the factor of its "
            "branch. What ends a branch is inside of it: let inside= match it, too"
        )


class UnknownBranch(ValueError):
    """Names do not tell the branches of a model.

    Attributes:
        where: the module whose branches they are.
    """

    def __init__(self, said: str, where: nn.Module) -> None:
        super().__init__(said)
        self.where = where
