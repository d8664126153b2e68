"""Take the reparametrizations off a model, and put them on again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from paramz.anatomy.paths import join, unnumbered
from paramz.reparam.modules import attach_, computed, detach_, parts_of, value_of
from paramz.reparam.recipe import Recipe, SharingRecipe


@dataclass(eq=False)
class Mapped:
    """A weight that is, or will be, computed by a recipe; one record however many modules use it.

    Attributes:
        names: its names in the model, in the model's order; several if it is tied.
        uses: the modules that use it, each with the weight's name in that module.
        recipe: bound to the weight.
        parts: what it is computed from; empty until `split_`.
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
        # A tied weight is recognised by the parts that no other weight has. Weights without parts
        # of their own are different weights if they are in different places.
        own = [id(part) for n, part in parts.items() if n not in shared]
        key = tuple(own) or (id(module), name)
        entry = found.setdefault(key, Mapped([], [], recipe, parts))
        entry.names.append(join(path, name))
        if (module, name) not in entry.uses:
            entry.uses.append((module, name))
    return list(found.values())


def take_off_(model: nn.Module) -> list[Mapped]:
    """Give a model plain weights.

    Returns:
        the reparametrized weights, with which `put_on_` makes the model as it was.
    """
    taken = mapped(model)
    values = [value_of(*entry.uses[0]) for entry in taken]
    for entry, weight in zip(taken, values, strict=True):
        for module, name in entry.uses:
            detach_(module, name, weight)
    return taken


def put_on_(entries: Iterable[Mapped]) -> None:
    """Let weights be computed from their parts, in the modules that use them."""
    for entry in entries:
        for module, name in entry.uses:
            attach_(module, name, entry.recipe, entry.parts)


def split_(entries: list[Mapped]) -> None:
    """Make the parts of weights that are plain parameters now, from their values.

    Args:
        entries: the weights; those that share a part with others are split together.

    Raises:
        ValueError: a recipe cannot represent a weight; the message names the weight.
    """
    groups: dict[tuple[object, ...], list[Mapped]] = {}
    for entry in entries:
        if isinstance(entry.recipe, SharingRecipe) and entry.recipe.shared:
            key: tuple[object, ...] = ()
            if entry.parts:  # as they shared before
                key = tuple(id(entry.parts[name]) for name in entry.recipe.shared)
            elif entry.recipe.by_name:
                key = unnumbered(entry.names[0]), tuple(_parameter(entry).shape)
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
    return module.get_parameter(name)


def _trained(
    entry: Mapped, parts: dict[str, Tensor | nn.Module], known: dict[int, nn.Parameter]
) -> dict[str, Tensor | nn.Module]:
    """The parts, with those that the recipe trains as parameters.

    Args:
        entry: the weight.
        parts: of the weight, as its recipe made them.
        known: the parameters made so far, by the id of the part: a shared part becomes one.
    """
    trains = _parameter(entry).requires_grad
    made: dict[str, Tensor | nn.Module] = {}
    for name, value in parts.items():
        if isinstance(value, Tensor) and name in entry.recipe.scalings:
            made[name] = known.setdefault(id(value), nn.Parameter(value, requires_grad=trains))
        else:
            made[name] = value
    return made
