"""Choose the weights to reparametrize: by role, by module type, or by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from paramz.anatomy.axes import Axes, axes_of
from paramz.anatomy.paths import join
from paramz.anatomy.tensors import listed, owned_parameters
from paramz.plan.plan import Plan
from paramz.reparam.modules import part_names
from paramz.theory.rules import ROLES

Choice = str | type[nn.Module]
Where = Choice | Sequence[Choice]

# Left out unless they are asked for: a row of a table is not the weights of a unit.
_TABLES = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Found:
    """A weight that can be reparametrized, as one module has it.

    Attributes:
        path: the module's path in the model.
        module: the module.
        name: the weight's name in the module.
        axes: which axes of the weight are its fan_in and fan_out.
    """

    path: str
    module: nn.Module
    name: str
    axes: Axes

    @property
    def full(self) -> str:
        """The weight's name in the model."""
        return join(self.path, self.name)

    @property
    def parameter(self) -> nn.Parameter:
        """The weight itself."""
        return self.module.get_parameter(self.name)


def find_weights(model: nn.Module, where: Where | None, plan: Plan | None) -> list[Found]:
    """The weights that ``where`` chooses, in the order of the model, tied ones under every name.

    Args:
        model: the model.
        where: roles, module types and patterns, as for `paramz.reparametrize_`; None for all
            weights but the tables of embeddings.
        plan: the plan that the model is under, which knows the roles; None if it is under none.

    Raises:
        ValueError: an entry matches nothing that can be reparametrized; an entry is a role and
            there is no plan; or a chosen weight is tied to a tensor that was not chosen.
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
    _require_all_ties(model, where, chosen)
    return chosen


def _require_all_ties(model: nn.Module, where: Where | None, chosen: list[Found]) -> None:
    names = {found.full for found in chosen}
    by_id = {id(found.parameter): found for found in reversed(chosen)}
    for each in owned_parameters(model):
        tied = by_id.get(id(each.parameter))
        if tied is not None and each.name not in names:
            raise ValueError(
                f"{tied.full} {tuple(tied.parameter.shape)} is tied to {each.name}, which "
                f"where={where!r} leaves out: choose both, or untie them"
            )


def _weights(model: nn.Module) -> Iterator[Found]:
    """Everything that a recipe can be applied to: no biases or gains, and no parts of weights."""
    for path, module, name, parameter in owned_parameters(model):
        if parameter.dim() < 2 or name in part_names(module):
            continue
        axes = axes_of(module, name, tuple(parameter.shape))
        if axes is not None and not axes.vector:
            yield Found(path, module, name, axes)


def _match(model: nn.Module, weights: list[Found], entry: Choice, plan: Plan | None) -> list[Found]:
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
    raise ValueError(
        f"where: no weight of this {type(model).__name__} has {kind}; "
        f"{_reason(model, weights, entry)}"
    )


def _reason(model: nn.Module, weights: list[Found], entry: Choice) -> str:
    """What an entry that matches no weight does match, or what it could have matched."""
    if isinstance(entry, str) and entry not in ROLES:
        hit = [name for name, _ in model.named_parameters() if re.search(entry, name)]
        if hit:
            return (
                f"it does match {', '.join(hit[:3])}, which are no weights (biases, gains, or "
                "parts of a weight that is reparametrized already)"
            )
    return f"the weights are {listed([w.full for w in weights], 8)}"
