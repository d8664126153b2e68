"""Branches that a norm ends: the map before it takes no factor, as the norm takes its size off.

In ``x + norm(branch(x))`` (Swin V2, Gemma 2, sandwich and peri-norm blocks) a factor on the last
map of the branch changes nothing, and in ``x + tanh(branch(x))`` little. A run of the model shows
such norms, whatever their names and whatever length they take, and such nonlinearities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paramz.anatomy.declared import FoundBlocks
from paramz.anatomy.paths import unnumbered
from paramz.anatomy.tensors import listed


def behind_norms(found: FoundBlocks, lost: Mapping[str, str], *, declared: bool) -> FoundBlocks:
    """The blocks, with the norm behind an end in its place.

    Args:
        found: what names or the user say, of the model or of its base.
        lost: path of an end in the base, of whose output a norm or a nonlinearity takes the size
            before it is added -> path of the norm, empty where no module puts out the result.
        declared: the user has declared the ends.

    Raises:
        ValueError: no module puts out what is added, or the user has declared the end.
    """
    bare = sorted(end for end, norm in lost.items() if not norm)
    if bare:
        raise ValueError(
            f"{listed(bare, 3)}: what it makes is normalised in forward code before it is added, "
            "or goes through a nonlinearity such as a tanh or a softmax, or through a gate that is "
            "made of it, so a factor on it is none on the branch. Let a module of its own put out "
            "what is added (such as an nn.LayerNorm, nn.RMSNorm or nn.Tanh in place of the code), "
            "and plan again"
        )
    if declared and lost:
        end, norm = next(iter(sorted(lost.items())))
        raise ValueError(
            f"Branches(ends=...) names {end}, but {norm} comes behind it and takes its size off "
            f"before the sum, so a factor on {end} is none on the branch. Name {norm} in its place"
        )
    pairs = {unnumbered(end): (end, norm) for end, norm in lost.items()}
    modules = {}
    for end, block in found.modules.items():
        modules[_as_in(end, *pairs.get(unnumbered(end), (end, end)))] = block
    return replace(found, modules=modules)


def _as_in(end: str, seen: str, norm: str) -> str:
    """The path of the norm behind an end, by that behind an end like it.

    Numbers of blocks are this end's. Those of a list of parts, as 0 and 1 in
    ``ModuleList([norms, layer])``, are the norm's own.
    """
    own, parts = end.split("."), norm.split(".")
    for i, (mine, other) in enumerate(zip(own, seen.split("."), strict=True)):
        if i >= len(parts) or parts[i] != other:
            break
        parts[i] = mine
    return ".".join(parts)
