"""Residual branches: which tensors are inside one, and which modules end one.

In ``x + branch(x)`` a depth scheme multiplies the branch by a power of the depth. The factor goes
into the last linear map of the branch, so that is what has to be found. Block layouts are known by
the names that model families use; everything else is declared with `Branches`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.bare_experts import bare_end, bare_last
from paramz.anatomy.called import count
from paramz.anatomy.declared import Branches as Branches
from paramz.anatomy.declared import FoundBlocks, UnknownBranch, declared_blocks, require_inside
from paramz.anatomy.ends import (
    added_alone,
    find_added_in,
    moved_numbers,
    require_ends,
    shown,
    without_gates,
)
from paramz.anatomy.left_out import left_out
from paramz.anatomy.normed_ends import behind_norms
from paramz.anatomy.numbered import series_of_blocks
from paramz.anatomy.paths import is_number, join, pattern, split
from paramz.anatomy.postnorm import norms_of_sums
from paramz.anatomy.stacks import counts_runs, depth_ratios, resized_stacks
from paramz.anatomy.sums import called


@dataclass(frozen=True, slots=True)
class Residual:
    """The residual branches of one model.

    Attributes:
        blocks: parameter name -> path of its block, for parameters inside branches.
        ends: names of the parameters that the output of a branch is linear in.
        hooked: paths of the ends without such parameters.
        modules: path of every end -> that of its block.
        ratios: path of every block -> target / base of ``depth``, the runs of all blocks of its
            stack, and ``loops``, its own, where they grow.
        alone: those of ``ends`` that are in none of these modules, and added by themselves.
        called: path of an end -> that of the module whose forward runs, where they differ.
        numbers: path of an end -> by what numbers in forward code multiply it, and in the base,
            where these differ.
        notes: what a reader of the plan should know, one sentence each.
    """

    blocks: Mapping[str, str]
    ends: frozenset[str]
    hooked: tuple[str, ...]
    modules: Mapping[str, str]
    ratios: Mapping[str, Mapping[str, float]]
    called: Mapping[str, str]
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    alone: frozenset[str] = frozenset()


_LINEAR = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


def find_branches(
    model: nn.Module, base: nn.Module, declared: Branches | None = None, example: Any = None
) -> Residual:
    """The residual branches of a model.

    Args:
        model: the model; names and types are looked at, and what it calls on the meta device.
        base: the base model, for its number of blocks.
        declared: where they are, for models whose blocks paramz does not know.
        example: what to call the models with; inputs are guessed if it is left out.

    Raises:
        ValueError: there are none, a part of a block has a branch without a known end, a norm in
            forward code takes an end's size off, what branches are added to is multiplied itself,
            or a declaration matches nothing. The message shows how to declare them.
    """
    known = declared is not None and declared.inside is not None
    apart = resized_stacks(model, base, lambda module: bool(_ends_of_block(module)))
    longer = resized_stacks(model, base, lambda _: True)
    try:
        found, at_base = (
            _find(m, declared, stacks)
            for m, stacks in zip((model, base), zip(apart, longer, strict=True), strict=True)
        )
    except UnknownBranch as error:
        raise ValueError(f"{error} {shown(model, base, example) or _how(error.where)}") from None
    named, added = found, find_added_in(base, at_base.modules, example)
    found, at_base = (behind_norms(f, added.lost, declared=known) for f in (found, at_base))
    if not known:
        found, at_base = (without_gates(f, added) for f in (found, at_base))
    parameters = {path: _end_parameters(model, path) for path in found.modules}
    if declared is not None and known:
        require_inside(declared, found, parameters, model)
    calls = count(model, base, _inner(found), _inner(at_base), example)
    ratios, notes = depth_ratios(
        model, base, found.runs, at_base.runs, declared.runs if declared else None, calls
    )
    numbers = moved_numbers(model, named, ratios, example, added)
    if not known:
        notes += left_out(model, base, set(found.runs))
    notes += require_ends(model, base, at_base, ratios, example, added, declared=known)
    ends = frozenset(name for names_of_end in parameters.values() for name in names_of_end)
    alone = added_alone(found, at_base, added) - ends
    return Residual(
        found.blocks,
        ends=ends | alone,
        hooked=tuple(path for path, own in parameters.items() if not own),
        modules=found.modules,
        ratios=ratios,
        called={path: called(model, path) for path in found.modules},
        numbers=numbers,
        notes=tuple(notes),
        alone=alone,
    )


def _inner(found: FoundBlocks) -> dict[str, set[str]]:
    """Path of a block -> those of its ends, by which its runs are counted if it is a mere list."""
    inner: dict[str, set[str]] = {path: set() for path in found.runs}
    for end, path in found.modules.items():
        inner[path].add(end)
    return inner


def _find(
    model: nn.Module, declared: Branches | None, stacks: tuple[Set[str], Set[str]]
) -> FoundBlocks:
    if declared is None or declared.inside is None or declared.ends is None:
        return _known(model, stacks)
    return declared_blocks(model, declared.inside, declared.ends)


def _known(model: nn.Module, stacks: tuple[Set[str], Set[str]]) -> FoundBlocks:
    of_blocks, longer = stacks
    found = _blocks_among(model, of_blocks, numbered=True)
    if not found.runs:  # attributes with a number, as layer0 and layer1
        found = _blocks_among(model, of_blocks, numbered=True, series=series_of_blocks(model))
    # A universal transformer runs one block, which needs no number, and no list in it grows.
    if not found.runs and counts_runs(model):
        found = _blocks_among(model, longer, numbered=False)
    if not found.runs:
        raise UnknownBranch(
            f"no residual branches found in this {type(model).__name__}: none of its numbered "
            "modules is a block that paramz knows (attention and feed-forward behind norms, or a "
            "ResNet block).",
            model,
        )
    return found


def _blocks_among(
    model: nn.Module, stacks: Set[str], *, numbered: bool, series: Set[str] = frozenset()
) -> FoundBlocks:
    found = FoundBlocks({}, {}, {})
    first: dict[int, str] = {}
    inside: list[str] = []
    for path, module in model.named_modules(remove_duplicate=False):
        place = is_number(path) or path in series
        stack = path in stacks or isinstance(module, nn.TransformerEncoder | nn.TransformerDecoder)
        if not path or stack or place != numbered or path.startswith(tuple(inside)):
            continue
        if id(module) in first:
            found.runs[first[id(module)]] += 1  # the same block again
            inside.append(f"{path}.")
            continue
        ends = _ends_of_block(module)
        if numbered or ends:
            _every_part_ends(path, module, ends)
        if not ends:
            continue
        first[id(module)] = path
        inside.append(f"{path}.")
        found.runs[path] = 1
        found.modules.update((join(path, end), path) for end in ends)
        outside = _outside(module)
        for name, _ in module.named_parameters():
            if not (names.SKIP_CONNECTIONS.search(name) or split(name)[0] in outside):
                found.blocks[join(path, name)] = path
    return found


def _ends_of_block(block: nn.Module) -> list[str]:
    """Paths inside a block of the modules that end its branches; empty if it is no known block."""
    children, on_sum = set(block._modules), _norms_on_sum(block)
    for layout, end in names.RESNET_BLOCKS:
        if layout <= children:
            ends = [p for p, _ in block.named_modules() if re.search(end, p)]
            return ends[-1:]
    norm_ends = [name for name in names.BRANCH_END_NORMS if name in children and name not in on_sum]
    if norm_ends:
        own = names.POST_ATTENTION_NORM in norm_ends
        return [*([] if own else [names.PLAIN_POST_ATTENTION_NORM]), *norm_ends]
    if not any(_is_norm(child) for child in block._modules.values()) and not on_sum:
        return []
    ends = [path for path, module in block.named_modules() if _ends(path, module)]
    for name, child in block._modules.items():
        if isinstance(child, nn.Sequential):
            ends += [f"{name}.{last}" for last in _last_of(child)]
    for path, module in list(block.named_modules()):
        experts = module._modules.get(names.EXPERT_CONTAINER)
        behind = {join(path, child) for child in module._modules}
        if isinstance(experts, nn.ModuleList) and not any(end in behind for end in ends):
            stacks = {n: e for n, e in experts.named_children() if isinstance(e, nn.Sequential)}
            ends += [
                join(path, f"{names.EXPERT_CONTAINER}.{number}.{last}")
                for number, stack in stacks.items()
                for last in _last_of(stack)
            ]
    # Of modules within each other, the inner one is the linear map.
    return [e for e in ends if not any(o.startswith(f"{e}.") for o in ends)]


def _ends(path: str, module: nn.Module) -> bool:
    if names.BRANCH_ENDS.search(path):
        return True
    # Stacked experts hold their last map as a parameter, (experts, ...).
    return bare_end(module) is not None or any(
        bare_last(module, name) for name in module._parameters
    )


def _last_of(stack: nn.Sequential) -> list[str]:
    """The last layer of a stack, dropout aside, if it is linear and not the only one."""
    silent = nn.Identity | nn.modules.dropout._DropoutNd
    layers = {name: m for name, m in stack.named_children() if not isinstance(m, silent)}
    linear = [name for name, m in layers.items() if isinstance(m, nn.Linear)]
    return linear[-1:] if len(linear) > 1 and linear[-1] == list(layers)[-1] else []


def _is_norm(module: nn.Module | None) -> bool:
    return module is not None and "norm" in type(module).__name__.lower()


def _outside(block: nn.Module) -> set[str]:
    """Children that act on the sum: the norms of a post-norm block."""
    if isinstance(block, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return set() if block.norm_first else {"norm1", "norm2", "norm3"}
    return _norms_on_sum(block)


def _norms_on_sum(block: nn.Module) -> set[str]:
    return {path for path in norms_of_sums(block) if _is_norm(block.get_submodule(path))}


def _every_part_ends(path: str, block: nn.Module, ends: list[str]) -> None:
    """An attention or feed-forward module without a known end would be left out silently."""
    normed = any(_is_norm(child) for child in block._modules.values())
    if not normed or any(end in (*names.RESNET_NORMS, *names.BRANCH_END_NORMS) for end in ends):
        return
    for name, child in block._modules.items():
        if child is None or names.SKIP_CONNECTIONS.search(name):
            continue
        matrices = [n for n, p in child.named_parameters() if p.ndim >= 2]
        ended = any(end == name or end.startswith(f"{name}.") for end in ends)
        if len(matrices) > 1 and not ended:
            raise UnknownBranch(
                f"{path}.{name} ({type(child).__name__}) is a residual branch whose last linear "
                f"map paramz does not know; its matrices are {', '.join(matrices[:8])}.",
                block,
            )


def _end_parameters(model: nn.Module, path: str) -> list[str]:
    """Names of the parameters that an end's output is linear in: all of a linear layer or norm."""
    module = model.get_submodule(path)
    bare = bare_end(module)
    linear = isinstance(module, _LINEAR) or type(module).__name__ == names.TRANSPOSED_LINEAR
    return [
        join(path, name)
        for name, parameter in module._parameters.items()
        if parameter is not None and (linear or name == bare or bare_last(module, name))
    ]


def _how(model: nn.Module) -> str:
    numbered = (n for n, _ in model.named_parameters() if re.search(r"\b\d+\b", n))
    example, _ = split(next(numbered, "layers.0.f.weight"))
    return (
        "Declare them: branches=paramz.Branches(inside=r'^<regex of parameter names>', "
        f"ends=r'<regex of module paths, such as {pattern(example)}$>')"
    )
