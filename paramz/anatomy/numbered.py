"""Numbered modules: lists, and attributes such as layer0 and layer1; a block's stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import nn

from paramz.anatomy.paths import is_number, join, stem


def numbered_containers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules all of whose children are numbers, with their paths.

    >>> [path for path, _ in numbered_containers(nn.ModuleDict({"a": nn.Sequential(nn.ReLU())}))]
    ['a']
    """
    for path, module in model.named_modules(remove_duplicate=False):
        if module._modules and all(name.isdigit() for name in module._modules):
            yield path, module


def container_sizes(model: nn.Module) -> dict[str, int]:
    """How many children every numbered container has, by its path, and every series by its name.

    >>> net = nn.ModuleDict({"blocks": nn.Sequential(nn.ReLU()), "mix0": nn.ReLU()})
    >>> container_sizes(net)
    {'mix#': 1, 'blocks': 1}
    """
    found: Counter[str] = Counter()
    for path, module in model.named_modules(remove_duplicate=False):
        names = module._modules
        if names and all(name.isdigit() for name in names):
            found[path] = len(names)
            continue
        for name in names:
            if name[-1:].isdigit() and stem(name):
                found[join(path, f"{stem(name)}#")] += 1
    return dict(found)


def stack_of(path: str, sizes: Mapping[str, int], others: Mapping[str, int]) -> str:
    """The stack of a block; lists within lists count as one where the outer one grows.

    The stages of a Swin, layers.0.blocks to layers.3.blocks, are four stacks, because there are as
    many in the base. Groups of blocks that grow in number are one.

    Args:
        path: of the block.
        sizes: of its model, see `container_sizes`.
        others: of the base, or of the model if the block is the base's.

    >>> stack_of("layer3.mix0", {"layer#": 4, "layer3.mix#": 2}, {"layer#": 2})
    'layer#.mix#'
    """
    parts = path.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    key = parts[: numbers[-1]] if numbers else list(parts)

    def grows(container: str) -> bool:
        # What only one of them has is inside a block that the other lacks, and tells nothing.
        both = container in sizes and container in others
        return both and sizes[container] != others[container]

    for i, part in enumerate(key):
        container, series = ".".join(parts[:i]), f"{stem(part)}#"
        if part.isdigit():
            key[i] = "#" if grows(container) else part
        elif part[-1:].isdigit():
            last = not numbers and i == len(key) - 1  # layer0 of layer0 to layer3
            key[i] = series if last or grows(join(container, series)) else part
    return ".".join(key)


def series_of_blocks(model: nn.Module) -> frozenset[str]:
    """Paths of modules of one class whose names differ in the number at their end only."""
    alike: dict[tuple[str, type], list[str]] = {}
    for path, module in model.named_modules():
        if path[-1:].isdigit() and not is_number(path):
            alike.setdefault((stem(path), type(module)), []).append(path)
    return frozenset(path for paths in alike.values() if len(paths) > 1 for path in paths)
