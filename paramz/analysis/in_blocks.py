"""Which modules of a check lie in a block, of which a deeper model has more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection


def in_blocks(modules: Collection[str]) -> frozenset[str]:
    """Those in an entry of a list, as ``h.0.fc``, or in one of several numbered attributes.

    A number may also end the name of a whole model, as in ``gpt2.h.0.fc``: what has no sibling of
    another number, and blocks of a list in it, is no block.

    Args:
        modules: paths of all modules in the table of a check.

    >>> sorted(in_blocks(["gpt2.h.0", "gpt2.h.0.fc", "gpt2.head", "layer1", "layer1.fc"]))
    ['gpt2.h.0.fc', 'layer1.fc']
    """
    series: defaultdict[str, set[str]] = defaultdict(set)  # name without its number -> with it
    holders = set()
    for module in modules:
        parts = module.split(".")
        above = [".".join(parts[: n + 1]) for n in range(len(parts))]
        for path in above:
            series[path.rstrip("0123456789")].add(path)
        last = max((n for n, part in enumerate(parts[:-1]) if part.isdigit()), default=0)
        holders.update(above[:last])

    def is_block(path: str) -> bool:
        name = path.rpartition(".")[2]
        one = len(series[path.rstrip("0123456789")]) == 1
        return name.isdigit() or (name[-1:].isdigit() and not (one and path in holders))

    def inside(module: str) -> bool:
        parts = module.split(".")
        return any(is_block(".".join(parts[:n])) for n in range(1, len(parts)))

    return frozenset(module for module in modules if inside(module))
