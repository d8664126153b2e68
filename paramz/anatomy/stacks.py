"""Stacks of residual blocks: how many runs of a block each has, in a model and in its base.

A stack is a numbered list of blocks. An encoder and a decoder are two, so are the stages of a Swin
or a ResNet, and each is deepened on its own. One block that stands in the list several times counts
as often, and so does one that a loop in the code runs several times, where an attribute tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from paramz.anatomy import hf_names, names
from paramz.anatomy.called import Calls
from paramz.anatomy.numbered import container_sizes, numbered_containers, stack_of
from paramz.anatomy.paths import join, unnumbered
from paramz.anatomy.twins import match_modules, resized_series


def depth_ratios(
    model: nn.Module,
    base: nn.Module,
    runs: Mapping[str, int],
    base_runs: Mapping[str, int],
    declared: str | None = None,
    calls: Calls | None = None,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Target / base of every block: depth, the runs of all blocks of its stack, and loops, its own.

    Args:
        model: the target.
        base: the base model.
        runs: path of every block of the target -> how often it stands in the model.
        base_runs: likewise of the base.
        declared: the attribute that holds the number of runs of all blocks together, such as
            ``"depth"`` or ``"config.num_hidden_layers"``.
        calls: how often a run calls the blocks, if there was one.

    Returns:
        path of every block -> its ratios, and notes on what was counted.

    Raises:
        ValueError: a stack has no block in the base; the declared attribute is none; or attributes
            say that a block runs several times and not which.
    """
    seen_runs, seen_base, seen, notes = _seen(runs, base_runs, calls or Calls())
    if declared is not None:
        ratio = _count_in(model, declared) / _count_in(base, declared)
        said = _all_looped(ratio, runs, base_runs)
        shown = depth_ratios(model, base, runs, base_runs, calls=calls)[0] if seen else said
        other = next((path for path in said if shown[path] != said[path]), None)
        return said, [] if other is None else [
            f"{declared} says {_words(said[other])} for {other}, and a run shows "
            f"{_words(shown[other])}: leave out Branches(runs=...) to take what the run shows"
        ]
    runs, base_runs = seen_runs, seen_base
    whole = (_grouped_layers(model), _grouped_layers(base))
    if not seen and whole[0] is not None and whole[1] is not None:
        note = f"groups of shared layers run {whole[0]} times in all, {whole[1]} in the base"
        return _all_looped(whole[0] / whole[1], runs, base_runs), [note]
    sizes, base_sizes = container_sizes(model), container_sizes(base)
    stacks = {path: stack_of(path, sizes, base_sizes) for path in runs}
    counts: Counter[str] = Counter()
    base_counts: Counter[str] = Counter()
    different: Counter[str] = Counter()
    for path, number in runs.items():
        counts[stacks[path]] += number
    for path, number in base_runs.items():
        stack = stack_of(path, base_sizes, sizes)
        base_counts[stack] += number
        different[stack] += 1
    missing = [stack for stack in counts if not base_counts[stack]]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: residual blocks that the base has none of (its blocks are in "
            f"{', '.join(base_counts)}). Give the base at least one block of every stack, and let "
            "the blocks of a stack be numbers of an nn.ModuleList."
        )
    ratios = {stack: counts[stack] / base_counts[stack] for stack in counts}
    if not seen:
        looped, notes = _looped(
            model, base, ratios, distinct=len(runs), base_distinct=len(base_runs)
        )
        if looped is not None:
            return _all_looped(looped, runs, base_runs), notes
    return {
        path: _ratios(ratios[stack], runs[path] * different[stack] / base_counts[stack])
        for path, stack in stacks.items()
    }, notes


def _seen(
    runs: Mapping[str, int], base_runs: Mapping[str, int], calls: Calls
) -> tuple[Mapping[str, int], Mapping[str, int], bool, list[str]]:
    """The runs that a call of both models shows, whether it shows all, and a note on shared blocks.

    Blocks that the call does not reach (a tower without its picture) run as often as they stand.
    """
    kinds = {unnumbered(path) for path in runs} & {unnumbered(path) for path in base_runs}
    reached = {
        kind
        for kind in kinds
        if all(
            shown.get(path, 0) > 0
            for shown, stand in ((calls.model, runs), (calls.base, base_runs))
            for path in stand
            if unnumbered(path) == kind
        )
    }
    one, other = (
        {path: shown[path] if unnumbered(path) in reached else n for path, n in stand.items()}
        for shown, stand in ((calls.model, runs), (calls.base, base_runs))
    )
    notes = []
    for kind in sorted(reached):
        counts = [
            [n for path, n in found.items() if unnumbered(path) == kind] for found in (one, other)
        ]
        if max(counts[0] + counts[1]) > 1:
            notes.append(
                f"blocks that run several times: {kind} run {sum(counts[0])} times "
                f"in all, {sum(counts[1])} in the base"
            )
    return one, other, reached == kinds == {unnumbered(path) for path in runs}, notes


def _all_looped(
    depth: float, runs: Mapping[str, int], base_runs: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """The ratios where blocks are shared alike: each runs depth / (ratio of blocks) as often."""
    loops = depth * len(base_runs) / len(runs)
    return {path: _ratios(depth, loops) for path in runs}


def _ratios(depth: float, loops: float) -> dict[str, float]:
    return {"depth": depth} if loops == 1 else {"depth": depth, "loops": loops}


def _words(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{name} times {ratio:.4g}" for name, ratio in ratios.items())


def counts_runs(model: nn.Module) -> bool:
    """Whether a model has an attribute that counts how often blocks run."""
    return next(_counts(model, model), None) is not None


# How a note ends on runs that a scheme without rules for depth says nothing of.
NO_RULE_FOR_RUNS = "'mup+completep' has rules for that; or give both as many"


def notes_on_runs(model: nn.Module, base: nn.Module) -> list[str]:
    """What to say where blocks run more often than in the base and no rule for that was asked for.

    Blocks that differ have tensors that differ in number, which is refused. Runs of the same blocks
    show in no tensor.
    """
    for name, one, other in (*_repeats(model, base), *_counts(model, base)):
        if one != other:
            return [
                f"{name} is {one} and {other} in the base, and both have the same tensors: if "
                "blocks run as often, learning rates and branches are the base's all the same. "
                f"{NO_RULE_FOR_RUNS}"
            ]
    return []


def _repeats(model: nn.Module, base: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Lists in which one block stands several times, with their lengths in model and base."""
    others = dict(numbered_containers(base))
    for path, module in numbered_containers(model):
        lists = [list(each._modules.values()) for each in (module, others.get(path)) if each]
        if len(lists) == 2 and any(len(set(map(id, blocks))) < len(blocks) for blocks in lists):
            yield f"the length of {path}", len(lists[0]), len(lists[1])


def resized_stacks(
    model: nn.Module, base: nn.Module, is_block: Callable[[nn.Module], bool]
) -> tuple[frozenset[str], frozenset[str]]:
    """Paths of what holds lists of blocks that are longer or shorter than the base's, of both.

    A norm beside such a list (``nn.Sequential(first, Encoder(blocks, norm), last)``) does not make
    one block of all of it.
    """
    twins = match_modules(model, base)
    found: tuple[set[str], set[str]] = set(), set()
    for path, names_in, _ in resized_series(model, base):
        if names.EXPERT_CONTAINER in path.split("."):
            continue  # experts may have norms of their own, too
        if all(is_block(model.get_submodule(join(path, name))) for name in names_in):
            for above, one in zip(found, (path, twins[path]), strict=True):
                parts = one.split(".")
                above.update(".".join(parts[: n + 1]) for n in range(len(parts)))
    return frozenset(found[0]), frozenset(found[1])


def _grouped_layers(model: nn.Module) -> int | None:
    """How many layers ALBERT runs: a group of layers at each of its hidden layers."""
    config = getattr(model, "config", None)
    if not isinstance(getattr(config, names.SHARED_GROUPS, None), int):
        return None
    inner = getattr(config, names.LAYERS_OF_GROUP, 1)
    return int(getattr(config, "num_hidden_layers") * inner)  # noqa: B009 (a bag of attributes)


def _looped(
    model: nn.Module,
    base: nn.Module,
    ratios: Mapping[str, float],
    distinct: int,
    base_distinct: int,
) -> tuple[float | None, list[str]]:
    """The ratio of an attribute that counts the runs of the only block, if there is one."""
    found = {
        name: (one, other)
        for name, one, other in _counts(model, base)
        if one != other and not any(abs(one / other - r) < 1e-9 for r in ratios.values())
    }
    if not found:
        return None, []
    (name, (one, other)), *_ = found.items()
    if distinct == base_distinct == 1 and len({a / b for a, b in found.values()}) == 1:
        note = f"one block is shared by all runs: {name} says {one} of them, {other} in the base"
        return one / other, [note]
    said = "; ".join(
        f"{name} is {one} and {other} in the base" for name, (one, other) in found.items()
    )
    counted = ", ".join(f"{stack} times {ratio:.4g}" for stack, ratio in ratios.items())
    raise ValueError(
        f"{said}, which the blocks do not tell (found: {counted}). If blocks are shared and run "
        "several times, say which attribute of the model counts all runs: "
        f"branches=paramz.Branches(runs={name!r}). If it counts something else, declare the blocks "
        "with Branches(inside=..., ends=...)."
    )


def _counts(model: nn.Module, base: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Attributes that count layers or runs, by path, with their values in model and base."""
    others = dict(base.named_modules())
    for path, module in model.named_modules():
        other = others.get(path)
        if other is not None:
            yield from _same_named(path, module, other)
    if hasattr(model, "config") and hasattr(base, "config"):
        yield from _same_named("config", model.config, base.config)


def _same_named(path: str, one: Any, other: Any) -> Iterator[tuple[str, int, int]]:
    for name in (*hf_names.DEPTHS, *names.RUN_COUNTS):
        a, b = (getattr(each, "__dict__", {}).get(name) for each in (one, other))
        if isinstance(a, int) and isinstance(b, int) and a > 0 and b > 0:
            yield join(path, name), a, b


def _count_in(model: nn.Module, attribute: str) -> int:
    value: Any = model
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not isinstance(value, int) or value < 1:
        raise ValueError(
            f"Branches(runs={attribute!r}): this {type(model).__name__} has no whole number there, "
            f"but {value!r}. Name an attribute of the model, such as 'depth' or "
            "'config.num_hidden_layers'"
        )
    return value
