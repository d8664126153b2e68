"""`reparametrize_` and its inverse, `unreparametrize_`, for models with and without a plan."""

from __future__ import annotations

from torch import nn

from paramz.anatomy.sound import require_model
from paramz.plan.on_model import plan_of, remember_
from paramz.reparam.modules import is_reparametrized
from paramz.reparam.recipe import Recipe
from paramz.reparam.rows import with_parts, without_parts
from paramz.reparam.weights import Mapped, put_on_, split_, take_off_
from paramz.reparam.where import Where, find_weights


def reparametrize_(model: nn.Module, recipe: Recipe, where: Where | None = None) -> None:
    """Replace weights of a model, in place, by other tensors that a recipe computes them from.

    It may be called before or after `paramz.parametrize_`, or without it. A plan gets rows for the
    new tensors in place of the weight's own row, so that `Plan.param_groups` has a rule for each.
    Make the optimizer afterwards, because the parameters are new. `unreparametrize_`,
    `paramz.remove_` and `paramz.fold_` give plain weights back, with exactly the values that the
    forward pass used.

    Args:
        model: the model that `paramz.parametrize_` was or will be called with.
        recipe: such as ``paramz.WeightNorm()`` or ``paramz.Compander()``.
        where: which weights: roles such as ``"hidden"`` (known once there is a plan), module types,
            or patterns that are searched for in parameter names; one of these or a list. If left
            out, all weights of linear, convolutional, recurrent and attention layers. Biases and
            gains are never taken, embeddings only if their type or name is given.

    Raises:
        ValueError: ``where`` matches nothing, is a role though there is no plan, or leaves out a
            tensor that a weight is tied to; or the recipe cannot be applied to a weight. The model
            is then as it was.

    >>> import paramz, torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> paramz.reparametrize_(model, paramz.WeightNorm(), where="output")
    >>> [(r.name, r.role) for r in paramz.plan_of(model).rows][2:]
    [('1.weight_v', 'output'), ('1.weight_g', 'scalar'), ('1.bias', 'scalar')]
    """
    require_model(model)
    plan = plan_of(model)
    entries: dict[int, Mapped] = {}
    for found in find_weights(model, where, plan):
        entry = entries.get(id(found.parameter))
        if entry is None:
            try:
                bound = recipe.bind(found.module, found.name, found.axes)
            except ValueError as error:
                raise ValueError(f"{found.full}: {error}") from error
            entry = entries[id(found.parameter)] = Mapped([], [], bound)
        entry.names.append(found.full)
        if (found.module, found.name) not in entry.uses:
            entry.uses.append((found.module, found.name))
    made = list(entries.values())
    split_(made)
    if plan is not None:
        remember_(model, with_parts(plan, made))
    put_on_(made)


def unreparametrize_(model: nn.Module) -> None:
    """Give a model plain weights again, with exactly the values that its forward pass used.

    Raises:
        ValueError: nothing in the model is reparametrized.

    >>> import paramz
    >>> layer = nn.Linear(3, 2)
    >>> paramz.reparametrize_(layer, paramz.WeightNorm())
    >>> paramz.unreparametrize_(layer)
    >>> list(layer.state_dict())
    ['weight', 'bias']
    """
    require_model(model)
    if not is_reparametrized(model):
        raise ValueError(f"nothing in this {type(model).__name__} is reparametrized")
    plan = plan_of(model)
    take_off_(model)
    if plan is not None:
        remember_(model, without_parts(plan, model))
