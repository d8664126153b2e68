"""Trained models: take a plain one under a plan with its function unchanged, or put a plan back on.

In the folded form a model under a plan differs from the plain one by its initial values, its
learning rates and a few factors in the forward pass. The initial values of a trained model no
longer matter, and learning rates need no change of weights. Only for the factors are weights
divided, which is the inverse of what `paramz.fold_` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from paramz.anatomy.branches import Branches
from paramz.anatomy.factors import Factors
from paramz.anatomy.probes import Factory
from paramz.anatomy.sound import require_model
from paramz.apply.checkpoints import FOLDED
from paramz.apply.fold import scaled_weights, unfold_scales_
from paramz.apply.fresh import refuse_masked
from paramz.apply.hooks import install_, unhook_
from paramz.apply.parametrize import make_plan
from paramz.apply.planners import planner_of
from paramz.plan.lost_factors import lost_factors
from paramz.plan.on_model import plan_of
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides
from paramz.theory.rules import Parametrization
from paramz.theory.tables import parametrization as find_parametrization


def adopt_(
    model: nn.Module,
    parametrization: str | Parametrization,
    *,
    base: nn.Module | Factory | int | None = None,
    base_width: int | None = None,
    wider: nn.Module | int | None = None,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    factors: Factors | None = None,
    example: Any = None,
) -> Plan:
    """Put a trained plain model under a parametrization, in place, without changing its function.

    Queries take up the inverse of the new attention scale, and an untied embedding that of its own
    factor. A factor that no weight can take up (a tied readout's) is left out of the plan, with a
    note that says so. `paramz.fold_` leads back. Use it to go on training a checkpoint of the
    standard parametrization, or to put adapters on one, with learning rates tuned at the base.

    Args:
        model: the model with its trained weights, plain.
        parametrization: a name such as ``"mup"``, or a `Parametrization`.
        base: the base, as for `paramz.parametrize_`; only its shapes are used.
        base_width: as for `paramz.parametrize_`.
        wider: as for `paramz.parametrize_`.
        roles: as for `paramz.parametrize_`.
        branches: as for `paramz.parametrize_`.
        factors: as for `paramz.parametrize_`.
        example: as for `paramz.parametrize_`.

    Raises:
        ValueError: the model is under a plan already, has masks, u-muP was asked for (it replaces
            layers), or as for `paramz.parametrize_`.

    >>> import torch
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 2))
    >>> model, x = net(32), torch.ones(1, 4)
    >>> before = model(x)
    >>> plan = adopt_(model, "mup", base=net)
    >>> bool((model(x) == before).all()), plan.param_groups(model, "adamw", lr=0.5)[1]["lr"]
    (True, 0.125)
    """
    require_model(model)
    if plan_of(model) is not None:
        raise ValueError("the model is under a plan already: paramz.fold_ makes it plain")
    refuse_masked(model)
    scheme = find_parametrization(parametrization)
    if planner_of(scheme).replaces_layers:
        raise ValueError(
            f"{scheme.name} replaces layers and draws their weights, so it cannot adopt a trained "
            "model"
        )
    options = {"base_width": base_width, "wider": wider, "roles": roles, "branches": branches}
    more = {"factors": factors, "example": example}
    made = make_plan(model, scheme, base=base, **options, **more)  # type: ignore[arg-type]
    kept, notes = [], list(made.notes)
    for scale in made.attention:
        try:
            scaled_weights(model, made, scale)
        except ValueError as error:
            notes.append(f"{scale.module}.{scale.attribute} stays as it was trained: {error}")
        else:
            kept.append(scale)
    for path in (*made.multipliers, *made.branches):
        notes.append(
            f"{path} keeps the factor 1 that it was trained with: no weight of its own can take up "
            "the inverse of the plan's"
        )
    made = replace(made, attention=tuple(kept), multipliers={}, branches={}, notes=tuple(notes))
    unfold_scales_(model, made)
    install_(model, made)
    return made


def restore_(model: nn.Module, plan: Plan) -> None:
    """Put a saved plan back on a plain model of the same shapes, in place, leaving its weights.

    Needed to load a checkpoint that was trained under the plan: attention scales and hooks are part
    of its function, and no state_dict holds them.

    Args:
        model: the model, plain, or under the plan with modules that were replaced since; its
            weights may be loaded before or after.
        plan: the plan, as read by ``Plan.load``.

    Raises:
        ValueError: the model is under another plan, has other parameters, or the plan is u-muP's.

    >>> import torch
    >>> net = lambda w=8: nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 2))
    >>> plan = make_plan(net(32), "mup", base=net)
    >>> model = net(32)
    >>> restore_(model, plan)
    >>> plan_of(model) == plan
    True
    """
    require_model(model)
    before = plan_of(model)
    changes = (plan.attention, plan.multipliers, plan.branches)
    if before == plan and lost_factors(changes, model) is None:
        return
    if before not in (None, plan):
        raise ValueError("the model is under another plan: paramz.remove_(model) takes it off")
    if planner_of(plan.parametrization).replaces_layers:
        raise ValueError(
            f"{plan.parametrization.name} replaces layers: call paramz.parametrize_(model, "
            f"{plan.parametrization.name!r}, init=False, example=...) as before training, then load"
        )
    saved = str(getattr(getattr(model, "config", None), "paramz", None))
    if saved.endswith(FOLDED):
        raise ValueError(
            f"the weights of this {type(model).__name__} were loaded folded ({saved}), so its "
            "factors would count twice: load it with paramz.hf.from_pretrained"
        )
    differ = [] if before == plan else _differences(model, plan)
    if differ:
        raise ValueError(f"the plan is of another model: {'; '.join(differ[:4])}")
    if before == plan:
        unhook_(model)  # the others' factors are there still
    install_(model, plan)


def _differences(model: nn.Module, plan: Plan) -> list[str]:
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    rows = {row.name: row.shape for row in plan.rows}
    missing: list[Any] = [f"it has no {name}" for name in rows if name not in shapes]
    missing += [f"the plan has no {name}" for name in shapes if name not in rows]
    return missing + [
        f"{name} is {shapes[name]}, {shape} in the plan"
        for name, shape in rows.items()
        if name in shapes and shapes[name] != shape
    ]
