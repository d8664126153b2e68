"""Numbered modules that are no residual blocks which paramz knows: named, or refused."""

from __future__ import annotations

from collections.abc import Set

from torch import nn

from paramz.anatomy.numbered import container_sizes, numbered_containers
from paramz.anatomy.paths import join, pattern, stem
from paramz.anatomy.twins import resized_series


def left_out(model: nn.Module, base: nn.Module, blocks: Set[str]) -> list[str]:
    """Notes on numbered modules with matrices that are no residual blocks which paramz knows.

    Args:
        model: the target.
        base: the base model.
        blocks: paths of the target's blocks, shared ones once.

    Raises:
        ValueError: there are more or fewer of them than in the base.
    """
    known = {id(model.get_submodule(path)) for path in blocks}
    sizes, notes = container_sizes(base), []
    done = [f"{path}." for path in blocks]
    for path, container in numbered_containers(model):
        if f"{path}.".startswith(tuple(done)):
            continue
        strange = {
            name: child
            for name, child in container.named_children()
            if id(child) not in known
            and not any(block.startswith(f"{join(path, name)}.") for block in blocks)
            and any(parameter.ndim >= 2 for parameter in child.parameters())
        }
        if not strange:
            continue
        done += [f"{join(path, name)}." for name in strange]
        kinds = ", ".join(dict.fromkeys(type(child).__name__ for child in strange.values()))
        first, last = (join(path, name) for name in (next(iter(strange)), list(strange)[-1]))
        there = first if first == last else f"{first} to {last}"
        if sizes.get(path, len(container._modules)) != len(container._modules):
            raise ValueError(
                _unknown(f"{there} ({kinds})", first, sizes[path], len(container._modules))
            )
        if any(child._modules for child in strange.values()):
            notes.append(f"{there} ({kinds}): not known as residual blocks, left without depth")
    _refuse_series(model, base, blocks)
    return notes


def _refuse_series(model: nn.Module, base: nn.Module, blocks: Set[str]) -> None:
    """Likewise of attributes with a number, as layer0, of which the model has more or fewer."""
    for path, children, there in resized_series(model, base):
        first, last = (join(path, name) for name in (children[0], children[-1]))
        inside = tuple(f"{join(path, name)}." for name in children)
        if stem(children[0]) and not any(f"{block}.".startswith(inside) for block in blocks):
            raise ValueError(_unknown(f"{first} to {last}", first, len(there), len(children)))


def _unknown(there: str, first: str, in_base: int, in_model: int) -> str:
    return (
        f"{there}: the base has {in_base} of these and the model {in_model}, and they are no "
        "residual blocks that paramz knows. Declare all residual branches of the model: "
        f"branches=paramz.Branches(inside=r'^<such as {pattern(first)}>', ends=r'<regex of the "
        "modules whose output is added>$')"
    )
