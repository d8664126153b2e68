"""Choose the weights to reparametrize: by role, by module type, or by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from paramz.anatomy.axes import Axes, axes_of
from paramz.plan.plan import Plan
from paramz.reparam.modules import maps_of
from paramz.theory.rules import ROLES

Where = str | type[nn.Module] | Sequence["str | type[nn.Module]"]

# What `where=None` leaves out: a row of a table is no unit's weights.
_TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Found:
    """One weight in one module."""

    path: str
    module: nn.Module
    name: str
    axes: Axes

    @property
    def full(self) -> str:
        """The parameter's name in the model."""
        return f"{self.path}.{self.name}" if self.path else self.name

    @property
    def parameter(self) -> nn.Parameter:
        """The weight itself."""
        found = self.module._parameters[self.name]
        assert found is not None
        return found


def find_weights(model: nn.Module, where: Where | None, plan: Plan | None) -> list[Found]:
    """The weights that ``where`` says, in the order of the model, tied ones under every name.

    Raises:
        ValueError: an entry matches nothing that can be reparametrized, a role was given and there
            is no plan, or a tensor is tied to one that was not chosen.
    """
    weights = list(_weights(model))
    if where is None:
        chosen = [found for found in weights if not isinstance(found.module, _TABLES)]
        if not chosen:
            raise ValueError(f"this {type(model).__name__} has no weight to reparametrize")
    else:
        entries = [where] if isinstance(where, str | type) else list(where)
        picked = {found.full for entry in entries for found in _match(model, weights, entry, plan)}
        chosen = [found for found in weights if found.full in picked]
    names = {found.full for found in chosen}
    ids = {id(found.parameter) for found in chosen}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            full = f"{path}.{name}" if path else name
            if id(parameter) in ids and full not in names:
                first = next(f for f in chosen if id(f.parameter) == id(parameter))
                raise ValueError(
                    f"{first.full} {tuple(first.parameter.shape)} is tied to {full}, which "
                    f"where={where!r} leaves out: choose both, or untie them"
                )
    return chosen


def _weights(model: nn.Module) -> Iterator[Found]:
    for path, module in model.named_modules(remove_duplicate=False):
        maps = maps_of(module)
        taken = {f"{name}_{part}" for name, recipe in maps for part in recipe.tensors}
        for name, parameter in module._parameters.items():
            if parameter is None or parameter.dim() < 2 or name in taken:
                continue
            axes = axes_of(module, name, tuple(parameter.shape))
            if axes is not None and not axes.vector:
                yield Found(path, module, name, axes)


def _match(
    model: nn.Module, weights: list[Found], entry: str | type[nn.Module], plan: Plan | None
) -> list[Found]:
    if isinstance(entry, type):
        found = [w for w in weights if isinstance(w.module, entry)]
        kind = f"type {entry.__name__}"
    elif entry in ROLES:
        if plan is None:
            raise ValueError(
                f"where={entry!r} is a role, and roles are known once the model is under a plan: "
                "call paramz.parametrize_ first, or say where by module type or name pattern"
            )
        named = {n for r in plan.rows if r.role == entry for n in (r.name, *r.aliases)}
        found = [w for w in weights if w.full in named]
        kind = f"role {entry!r}"
    else:
        found = [w for w in weights if re.search(entry, w.full)]
        kind = f"pattern {entry!r}"
    if found:
        return found
    hit = [n for n, _ in model.named_parameters() if isinstance(entry, str) and re.search(entry, n)]
    reason = (
        f"it does match {', '.join(hit[:3])}, which are no weights (biases, gains, or parts of a "
        "weight that is reparametrized already)"
        if hit and entry not in ROLES
        else f"the weights are {', '.join(w.full for w in weights[:8]) or 'none'}"
    )
    raise ValueError(f"where: no weight of this {type(model).__name__} has {kind}; {reason}")
