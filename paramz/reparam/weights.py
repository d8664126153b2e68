"""Take reparametrizations off a model, and put them on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from paramz.reparam.modules import attach_, computed, detach_, parts_of, value_of
from paramz.reparam.recipe import Recipe, SharingRecipe


@dataclass(eq=False)
class Mapped:
    """A weight with its bound recipe, wherever it is used.

    Attributes:
        names: its names in the model, the first one first.
        uses: the modules and local names that have it.
        recipe: bound to it.
        parts: what it is computed from; empty until split.
    """

    names: list[str]
    uses: list[tuple[nn.Module, str]]
    recipe: Recipe
    parts: dict[str, Tensor | nn.Module] = field(default_factory=dict)


def mapped(model: nn.Module) -> list[Mapped]:
    """The reparametrized weights of a model, tied ones once."""
    found: dict[tuple[object, ...], Mapped] = {}
    for path, module, name, recipe in computed(model):
        parts = parts_of(module, name, recipe)
        shared = recipe.shared if isinstance(recipe, SharingRecipe) else ()
        # Weights that share all of their parts are told apart by where they are, tied ones are not.
        own = [id(part) for n, part in parts.items() if n not in shared]
        key = tuple(own) or (id(module), name)
        entry = found.setdefault(key, Mapped([], [], recipe, parts))
        entry.names.append(f"{path}.{name}" if path else name)
        if (module, name) not in entry.uses:
            entry.uses.append((module, name))
    return list(found.values())


def take_off_(model: nn.Module) -> list[Mapped]:
    """Give a model its plain weights; `put_on_` of what this returns makes it as it was."""
    taken = mapped(model)
    values = [value_of(*entry.uses[0]) for entry in taken]
    for entry, weight in zip(taken, values, strict=True):
        for module, name in entry.uses:
            detach_(module, name, weight)
    return taken


def put_on_(entries: Iterable[Mapped]) -> None:
    """Attach weights whose parts are known."""
    for entry in entries:
        for module, name in entry.uses:
            attach_(module, name, entry.recipe, entry.parts)


def split_(entries: list[Mapped]) -> None:
    """Make the parts of weights that are plain parameters now.

    Raises:
        ValueError: a recipe has no parts for a weight; the message names it.
    """
    groups: dict[tuple[object, ...], list[Mapped]] = {}
    for entry in entries:
        if isinstance(entry.recipe, SharingRecipe) and entry.recipe.shared:
            weight = _parameter(entry)
            like = re.sub(r"\b\d+\b", "#", entry.names[0])
            key = (like, tuple(weight.shape)) if entry.recipe.by_name else ()
            groups.setdefault((type(entry.recipe), *key), []).append(entry)
        else:
            try:
                entry.parts = _trained(entry, entry.recipe.split(_parameter(entry).detach()), {})
            except ValueError as error:
                raise ValueError(f"{entry.names[0]}: {error}") from error
    for group in groups.values():
        recipe = group[0].recipe
        assert isinstance(recipe, SharingRecipe)
        try:
            split = recipe.split_all([_parameter(entry).detach() for entry in group])
        except ValueError as error:
            raise ValueError(f"{', '.join(e.names[0] for e in group)}: {error}") from error
        known: dict[int, nn.Parameter] = {}
        for entry, parts in zip(group, split, strict=True):
            entry.parts = _trained(entry, parts, known)


def _parameter(entry: Mapped) -> nn.Parameter:
    module, name = entry.uses[0]
    found = module._parameters[name]
    assert found is not None
    return found


def _trained(
    entry: Mapped, parts: dict[str, Tensor | nn.Module], known: dict[int, nn.Parameter]
) -> dict[str, Tensor | nn.Module]:
    """The same with parameters where the recipe trains them; shared ones once."""
    trains = _parameter(entry).requires_grad
    made: dict[str, Tensor | nn.Module] = {}
    for name, value in parts.items():
        if isinstance(value, Tensor) and name in entry.recipe.scalings:
            made[name] = known.setdefault(id(value), nn.Parameter(value, requires_grad=trains))
        else:
            made[name] = value
    return made
