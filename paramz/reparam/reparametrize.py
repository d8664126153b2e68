"""reparametrize_ and its inverse, and how both stand with a plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from paramz.apply.parametrize import _MARK, is_reparametrized, plan_of
from paramz.plan.plan import Plan
from paramz.reparam.recipe import Recipe
from paramz.reparam.rows import contract, expand
from paramz.reparam.weights import Mapped, put_on_, split_, take_off_
from paramz.reparam.where import Where, find_weights


def reparametrize_(model: nn.Module, recipe: Recipe, where: Where | None = None) -> None:
    """Compute weights of a model from other tensors, in place, as a recipe says.

    It works before or after `parametrize_`, and without: a plan gets rows for the new tensors in
    place of the weight's, so that `Plan.param_groups` has a rule for each. Make the optimizer
    afterwards, as the parameters are new. `unreparametrize_`, `remove_` and `fold_` give plain
    weights back, with the very values that the forward pass used.

    Args:
        model: the model that `parametrize_` was or will be called with.
        recipe: such as `WeightNorm()` or `Compander()`.
        where: roles such as ``"hidden"`` (known once there is a plan), module types, or patterns
            that are searched in parameter names; one or a list. All weights of linear,
            convolutional, recurrent and attention layers if left out. Never biases and gains;
            embeddings only if their type or name is given.

    Raises:
        ValueError: where matches nothing, names a role without a plan, or leaves out what a weight
            is tied to; or the recipe cannot be had for a weight. The model is then as it was.

    >>> import paramz, torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> model = net(32)
    >>> plan = paramz.parametrize_(model, "mup", base=net)
    >>> paramz.reparametrize_(model, paramz.WeightNorm(), where="output")
    >>> [(r.name, r.role) for r in paramz.plan_of(model).rows][2:]
    [('1.weight_v', 'output'), ('1.weight_g', 'scalar'), ('1.bias', 'scalar')]
    """
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
        vars(model)[_MARK] = expand(plan, made)
    put_on_(made)


def unreparametrize_(model: nn.Module) -> None:
    """Give a model plain weights again, of exactly the values that its forward pass used.

    Raises:
        ValueError: nothing in it is reparametrized.

    >>> import paramz
    >>> layer = nn.Linear(3, 2)
    >>> paramz.reparametrize_(layer, paramz.WeightNorm())
    >>> paramz.unreparametrize_(layer)
    >>> list(layer.state_dict())
    ['weight', 'bias']
    """
    if not is_reparametrized(model):
        raise ValueError(f"nothing in this {type(model).__name__} is reparametrized")
    plan = plan_of(model)
    take_off_(model)
    if plan is not None:
        vars(model)[_MARK] = contract(plan, model)


def with_plain_weights(
    model: nn.Module,
    call: Callable[..., Plan],
    base: Any,
    wider: Any,
    *,
    redraw: bool,
    apply: bool = False,
) -> Plan:
    """Plan a reparametrized model: `call` sees plain weights, and so it does in its base models.

    Args:
        model: the target; reparametrized again afterwards, also if the call raises.
        call: `parametrize_` or `make_plan` with all but base and wider bound.
        base: what the user gave.
        wider: what the user gave.
        redraw: the call may change weights, so their parts are made anew if there was no plan.
        apply: the plan stays on the model.
    """
    before = plan_of(model)
    entries = take_off_(model)
    if before is not None:
        vars(model)[_MARK] = contract(before, model)
    if isinstance(base, nn.Module):
        others = [m for m in (base, wider) if isinstance(m, nn.Module)]
    else:
        others = []
        base = _plain_factory(base) if callable(base) else base
    lent = [taken for other in others for taken in take_off_(other)]
    keep = before
    try:
        made = call(base=base, wider=wider)
        if redraw and before is None:
            factors = {row.name: row.factor for row in made.rows}
            # At the base no weight is touched, and neither are its parts.
            changed = [e for e in entries if factors[e.names[0]] not in (1.0, None)]
            # Weights that share a tensor are split together.
            together = {e.recipe for e in changed if getattr(e.recipe, "shared", ())}
            split_([e for e in entries if e in changed or e.recipe in together])
        made = expand(made, entries)
        keep = made if apply else before
    finally:
        put_on_(lent)
        put_on_(entries)
        vars(model).pop(_MARK, None)
        if keep is not None:
            vars(model)[_MARK] = keep
    return made


def draw_again_(model: nn.Module, plan: Plan, draw: Callable[[nn.Module, Plan], None]) -> None:
    """Draw a reparametrized model afresh: the plain weights first, then their parts from them."""
    entries = take_off_(model)
    try:
        draw(model, contract(plan, model))
        split_(entries)
    finally:
        put_on_(entries)


def _plain_factory(base: Callable[[int], nn.Module]) -> Callable[..., nn.Module]:
    @wraps(base)
    def build(*width: int) -> nn.Module:
        made = base(*width)
        if isinstance(made, nn.Module):
            take_off_(made)
        return made

    return build
