"""Branches that a run shows and names do not: refused, with the declaration that names them all."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.around import block_of, resized
from paramz.anatomy.declared import FoundBlocks
from paramz.anatomy.inputs import possible_inputs
from paramz.anatomy.nested import without_inner
from paramz.anatomy.paths import split, unnumbered
from paramz.anatomy.sums import find_added
from paramz.anatomy.tensors import listed
from paramz.anatomy.terms import Added

_UNSEEN = (
    "the ends of residual branches are taken from names alone, as no run of the base showed what "
    "it adds to what: a norm behind an end, a branch beside the known ones or a bias that is added "
    "by itself would not have been seen. Give example=, an input that the base's forward takes (it "
    "runs on the meta device, or else where its weights are), or declare all branches with "
    "branches=paramz.Branches(inside=..., ends=...)"
)

# Blocks of one kind that run first; code that counts its blocks needs all of them.
_KEPT = (2, None)
_ALL = (None,)


def require_ends(
    model: nn.Module,
    base: nn.Module,
    found: FoundBlocks,
    ratios: Mapping[str, Mapping[str, float]],
    example: Any,
    added: Added,
    *,
    declared: bool,
) -> list[str]:
    """Refuse a model with branches that deepen and whose ends are not among those that are known.

    Args:
        model: the target.
        base: the base model, which runs.
        found: the blocks of the base.
        ratios: path of every block of the target -> its ratios.
        example: what to call the model with; inputs are guessed if it is left out.
        added: what a run of the base shows, `find_added_in`.
        declared: the user has declared the ends, and is told in a note.

    Returns:
        notes.

    Raises:
        ValueError: there are such branches, and the message holds a declaration of all of them; or
            what they are added to is multiplied itself.
    """
    deepened = {unnumbered(path) for path, ratio in ratios.items() if ratio["depth"] != 1}

    def deepens(name: str) -> bool:
        inside = any(unnumbered(name).startswith(f"{path}.") for path in deepened)
        return inside or resized(model, base, name) is not None

    if not added.ran:
        return [_UNSEEN] if deepened and not declared else []
    added = without_inner(model, base, added)
    averaged = [name for name in sorted(added.averaged) if deepens(name)]
    if averaged:
        raise ValueError(
            f"{listed(averaged, 4)}: what this makes is added to a stream that is multiplied "
            "itself, as in (x + f(x)) / sqrt(2), torch.lerp(x, f(x), t), x + t * (f(x) - x) or a "
            "gate x * (1 - g) + f(x) * g. The stream then forgets what blocks before added, and "
            "schemes for depth are for sums that keep it. Let blocks return x + b * f(x), with a "
            "number b or none; or let an nn.LayerNorm take the sum at once, as DeepNorm does; or "
            "keep the base's number of blocks and plan without a scheme for depth. (Of a momentum "
            "ResNet, v = g * v + (1 - g) * f(x) and x = x + v, the velocity forgets: what a block "
            "adds in all is f(x) only if many more than 1 / (1 - g) blocks follow, so no rule for "
            "depth holds from a base of fewer: plan its blocks as x + f(x).)"
        )
    missing = [name for name in sorted(added.unended) if deepens(name)]
    if not missing:
        return []
    said = (
        f"{listed(missing, 4)}: a run shows that the model adds what these make to what they were "
        "made from, so they end residual branches"
    )
    if declared:
        return [f"{said}, which the declared ends leave without depth"]
    whole = without_inner(model, base, find_added_in(base, found.modules, example, _ALL))
    every = [name for name in whole.unended if deepens(name)]
    raise ValueError(
        f"{said}, and paramz would leave them without depth. "
        f"{_declaration(model, base, replace(whole, unended=set(every or missing)))}"
    )


def shown(model: nn.Module, base: nn.Module, example: Any) -> str | None:
    """How to declare branches that names do not tell; None if no run tells them either.

    Args:
        model: the target.
        base: the base model, which runs.
        example: what to call the model with; inputs are guessed if it is left out.
    """
    found = without_inner(model, base, find_added_in(base, (), example, _ALL))
    numbered = {name for name in found.unended if re.search(r"\b\d+\b", name)} or found.unended
    return _declaration(model, base, replace(found, unended=numbered)) if numbered else None


def find_added_in(
    model: nn.Module,
    ends: Iterable[str],
    example: Any,
    kept: tuple[int | None, ...] = _KEPT,
    where: tuple[bool, ...] = (True, False),
) -> Added:
    """What ends branches, but for maps on the stream itself; nothing if the model does not run.

    Args:
        model: the base model.
        ends: paths of the modules that are known to end branches.
        example: what to call the model with; inputs are guessed if it is left out.
        kept: how many equal blocks of a list run; the second where the first does not run.
        where: whether it runs on the meta device; the second likewise.
    """
    for inputs in possible_inputs(model, example):
        for meta, number in ((meta, number) for meta in where for number in kept):
            try:
                with warnings.catch_warnings(), torch.no_grad():
                    warnings.simplefilter("ignore")  # of code that meets a guess
                    found = find_added(model, ends, inputs, number, meta=meta)
            except Exception:  # any model's own code, on inputs that it may not like
                continue
            skips = names.SKIP_CONNECTIONS
            on_stream = {n for n in found.unended if any(map(skips.search, n.split(".")))}
            return replace(found, unended=found.unended - on_stream)
    return Added(ran=False)


def without_gates(found: FoundBlocks, added: Added) -> FoundBlocks:
    """The blocks without ends that only gate what others make, as in squeeze and excitation.

    Args:
        found: what names say, of the model or of its base.
        added: what a run of the base shows.
    """
    gates = {unnumbered(end) for end in added.gates - added.ended}
    kept = {end: block for end, block in found.modules.items() if unnumbered(end) not in gates}
    return replace(found, modules=kept)


def added_alone(found: FoundBlocks, at_base: FoundBlocks, added: Added) -> frozenset[str]:
    """Parameters that are added to the stream by themselves, and that no module at an end holds.

    In ``x + f(x) + self.b`` a factor on ``f`` is none on ``b``, which would add up over depth.

    Args:
        found: blocks of the target.
        at_base: those of the base.
        added: what a run of the base shows.
    """
    ends = tuple(f"{path}." for path in at_base.modules)
    alone = {unnumbered(name) for name in added.bare if not name.startswith(ends)}
    return frozenset(name for name in found.blocks if alone and unnumbered(name) in alone)


def moved_numbers(
    model: nn.Module,
    found: FoundBlocks,
    ratios: Mapping[str, Mapping[str, float]],
    example: Any,
    added: Added,
) -> dict[str, tuple[float, float]]:
    """End -> by what numbers in the code multiply it, and in the base, where these differ.

    As in ``x + f(x) / sqrt(self.layers)``. Of blocks that have different ones nothing is said.

    Args:
        model: the target, which runs on the meta device.
        found: its blocks, under the ends that the base ran with.
        ratios: path of every block -> its ratios.
        example: what to call the model with; inputs are guessed if it is left out.
        added: what a run of the base shows.
    """
    deepened = [end for end, block in found.modules.items() if ratios[block]["depth"] != 1]
    if not deepened or not added.numbers:
        return {}
    seen = find_added_in(model, found.modules, example, where=(True,))
    here, there = _by_kind(seen.numbers), _by_kind(added.numbers)
    both = {end: (here.get(unnumbered(end)), there.get(unnumbered(end))) for end in deepened}
    return {
        end: (one, other)
        for end, (one, other) in both.items()
        if one is not None and other is not None and not math.isclose(one, other, rel_tol=1e-6)
    }


def _by_kind(numbers: Mapping[str, set[float]]) -> dict[str, float]:
    """End without the numbers of blocks -> the number of all such ends, where they have one."""
    kinds: dict[str, set[float]] = {}
    for end, found in numbers.items():
        kinds.setdefault(unnumbered(end), set()).update(found)
    return {kind: next(iter(found)) for kind, found in kinds.items() if len(found) == 1}


def _declaration(model: nn.Module, base: nn.Module, added: Added) -> str:
    """What to paste for branches that end in some matrices, or in known ends."""
    every = sorted(added.unended)
    bare = [name for name in every if base.get_submodule(split(name)[0])._modules]
    if bare:
        return (
            f"{listed(bare, 4)}: a module of its own for each, such as an nn.Linear, lets "
            "paramz.Branches(inside=..., ends=...) name it as an end."
        )
    last = {name: _last_module(base, name, added) for name in every}
    if bent := sorted(name for name, path in last.items() if path is None):
        return (
            f"After {listed(bent, 4)} comes a nonlinearity, or a gate that is made of the same, so "
            "a factor on them is none on the branch: let a module put out what is added, and name "
            "it in paramz.Branches(inside=..., ends=...), which hooks any module."
        )
    ends = {*(path for path in last.values() if path is not None), *added.ended}
    blocks = {block_of(model, base, path) for path in ends}
    inside = "|".join(
        sorted({re.sub(r"[0-9]+", "[0-9]+", block.replace(".", "[.]")) for block in blocks})
    )
    paths = "|".join(sorted({_exact(path, ends, base) for path in ends}))
    return (
        f"Declare all branches: branches=paramz.Branches(inside=r'^({inside})[.]', "
        f"ends=r'^({paths})$')"
    )


def _last_module(base: nn.Module, matrix: str, added: Added) -> str | None:
    """The module whose output a factor on a branch is one of; None if it has no such module."""
    own, out = split(matrix)[0], added.outs.get(matrix)
    if matrix in added.bent:
        return out
    behind = type(base.get_submodule(out)).__name__ if out else ""
    return out if names.NORM_CLASS.search(behind) else own


def _counted(base: nn.Module, above: list[str], name: str) -> bool:
    """Whether a child is one of several whose names differ in a number at the end."""
    stem = name.rstrip("0123456789")
    children = base.get_submodule(".".join(above))._modules
    alike = [other for other in children if other.rstrip("0123456789") == stem]
    return name.isdigit() or (stem != name and len(alike) > 1)


def _exact(path: str, ends: Collection[str], base: nn.Module) -> str:
    """A pattern for a path and others that are ends as well, as general as it can be."""
    parts = path.split(".")
    numbers = [i for i, part in enumerate(parts) if _counted(base, parts[:i], part)]
    paths = [name for name, _ in base.named_modules(remove_duplicate=False)]
    for many in range(len(numbers), -1, -1):
        general = "[.]".join(
            re.sub("[0-9]+$", "[0-9]+", part) if i in numbers[:many] else part
            for i, part in enumerate(parts)
        )
        if all(name in ends for name in paths if re.fullmatch(general, name)):
            return general
    return "[.]".join(parts)
