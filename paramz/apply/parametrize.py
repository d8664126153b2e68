"""The verbs that put a model under a parametrization, draw it afresh, and make it plain again."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from paramz.anatomy.branches import Branches
from paramz.anatomy.embeddings import zero_padding_rows_
from paramz.anatomy.factors import Factors
from paramz.anatomy.masks import Densities, without_masks
from paramz.anatomy.probes import Factory
from paramz.anatomy.runs import nothing_cached
from paramz.anatomy.sound import require_apart, require_model
from paramz.anatomy.tensors import is_trainable_kind
from paramz.apply.fresh import refuse_computed, refuse_masked, refuse_wrapped
from paramz.apply.hooks import unhook_
from paramz.apply.initial import draw_row_
from paramz.apply.measured import warn_of_own_values
from paramz.apply.planners import Request, planner_of
from paramz.nn.residual import Alphas
from paramz.plan.on_model import plan_of, remember_, require_plan
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides
from paramz.plan.sparse import named_under_masks
from paramz.reparam.modules import is_reparametrized
from paramz.reparam.plain import PlainWeights, plain_weights
from paramz.reparam.reparametrize import unreparametrize_
from paramz.theory.rules import Parametrization
from paramz.theory.tables import parametrization as find_parametrization


def make_plan(
    model: nn.Module,
    parametrization: str | Parametrization,
    *,
    base: nn.Module | Factory | int | None = None,
    base_width: int | None = None,
    wider: nn.Module | int | None = None,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    factors: Factors | None = None,
    fold: bool = True,
    example: Any = None,
    densities: Mapping[str, float] | None = None,
) -> Plan:
    """Plan a parametrization without touching the model; nothing is built off the meta device.

    The arguments are those of `parametrize_`.

    >>> import torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> [row.role for row in make_plan(net(32), "mup", base=net).rows]
    ['input', 'vector', 'output', 'scalar']
    """
    scheme = find_parametrization(parametrization)
    refuse_wrapped(model)
    with _planning(model, scheme, (base, wider), roles, densities) as (plain, masks):
        asked = Request(
            scheme=scheme,
            base=masks.probes[0],
            base_width=base_width,
            wider=masks.probes[1],
            roles=roles,
            branches=branches,
            factors=factors,
            fold=fold,
            example=example,
            densities=masks,
        )
        return plain.expanded(_under_masks(planner_of(scheme).draft(model, asked), masks))


def parametrize_(
    model: nn.Module,
    parametrization: str | Parametrization,
    *,
    base: nn.Module | Factory | int | None = None,
    base_width: int | None = None,
    wider: nn.Module | int | None = None,
    roles: Overrides | None = None,
    branches: Branches | None = None,
    factors: Factors | None = None,
    fold: bool = True,
    init: bool = True,
    trained: bool = False,
    example: Any = None,
    alphas: Alphas | None = None,
    densities: Mapping[str, float] | None = None,
) -> Plan:
    """Put a freshly built model under a parametrization, in place, and return its `Plan`.

    The init std of every tensor becomes the std measured on the base model times its rule, and
    attention logits are scaled by 1/d_head where the head size grows. Multipliers are folded into
    init, learning rate, epsilon and decay, so the forward pass is the plain model's; only a tied
    readout needs one (a pre-hook on its input). At the base nothing changes, bit for bit. Doing it
    twice with the same plan changes nothing.

    Under a scheme with rules for depth or experts, as in ``"mup+completep"`` or ``"mup+moe"``, the
    base may have another number of blocks or experts than the model.

    Args:
        model: the target, freshly initialised. On the meta device only its shapes are used: call
            `init_` after ``to_empty``.
        parametrization: a name such as ``"mup"``, or a `Parametrization`.
        base: the base model: a factory ``width -> model`` (called at ``base_width`` and twice
            that), a module (then ``wider`` must also be one), or for a Hugging Face model a width.
        base_width: the width at which a factory builds the base; an error beside a module.
        wider: overrides the wider probe: a width for the factory, or a module.
        roles: ordered overrides ``{regex: role or Axes}``.
        branches: where the residual branches are, for a depth scheme on blocks that paramz does not
            know.
        factors: ordered ``{regex: value}`` for factors in the model's own code, searched in
            ``"module.attribute"`` for numbers that modules keep and in the path of a module. The
            value ``"attention"`` is for a factor on attention logits, which gets the scheme's rule;
            ``"constant"`` holds a number at the base's; a number sets it; None leaves it as the
            code has it. Of a linear, conv or embedding layer itself, a number or ``"width^-1/2"``
            multiplies what goes in (of an embedding, what comes out), where width stands for that
            of the model over that of the base. SP and NTP leave all of them as they are.
        fold: fold multipliers; False keeps those of the table as hooks on the module's input.
        init: False leaves values alone (a checkpoint will be, or was, loaded).
        trained: scale weights even if there is evidence that they are trained, which else is an
            error: `adopt_` is for those.
        example: what to call the model with, as in training: a batch, or its inputs. u-muP needs
            it; other schemes run a probe with it where shapes do not tell a readout from a
            bottleneck inside the network (without it inputs are guessed).
        alphas: u-muP's hyperparameters.
        densities: ordered ``{regex: density}`` of static masks that the model's own code applies,
            or that are not there yet: the share of entries that they leave, for ``"mup+s-mup"``.
            Those of torch.nn.utils.prune are counted.

    Under ``"u-mup"`` sizes count by themselves, roles are those of the layers, and what the model
    computes shows where its branches are. So base, base_width, wider, branches, factors and fold
    are not needed there; they are accepted and ignored, so that one call serves every scheme. See
    `paramz.nn.unit_scale_`.

    Raises:
        TypeError: the base is missing, or it or branches is of the wrong kind; for u-muP, the
            example is missing.
        ValueError: unknown parametrization, ambiguous roles, probes that do not match, the model
            already has another plan, is trained, wrapped, or has weights that torch computes from
            others, roles for u-muP, or alphas for another scheme or for layers
            that have theirs. The message says what would fix it.

    >>> import torch
    >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
    >>> model = net(32)
    >>> p = parametrize_(model, "mup", base=net)
    >>> [(g["roles"], g["lr"]) for g in p.param_groups(model, "adamw", lr=0.5)]
    [(['input', 'vector'], 0.5), (['output'], 0.125), (['scalar'], 0.5)]
    """
    scheme = find_parametrization(parametrization)
    refuse_wrapped(model)
    with _planning(model, scheme, (base, wider), roles, densities) as (plain, masks):
        asked = Request(
            scheme=scheme,
            base=masks.probes[0],
            base_width=base_width,
            wider=masks.probes[1],
            roles=roles,
            branches=branches,
            factors=factors,
            fold=fold,
            init=init,
            trained=trained,
            example=example,
            alphas=alphas,
            computed=frozenset(name for entry in plain.entries for name in entry.names),
            densities=masks,
        )
        made = _under_masks(planner_of(scheme).apply_(model, asked), masks)
        return plain.keep(made, redraw=init)


def init_(model: nn.Module, plan: Plan | None = None) -> None:
    """Draw all parameters afresh under the plan, for a model that was planned on meta.

    Args:
        model: the model after ``to_empty``; its buffers are the caller's.
        plan: the plan; the model's own if left out.

    Raises:
        ValueError: the model has no plan, is still on meta, or the plan holds no measured init.

    Warns:
        UserWarning: tensors of the base are no draws around zero.
    """
    require_model(model)
    made = require_plan(model, plan)
    if made.computed:
        with plain_weights(model, plan=made) as plain:
            init_(model, plain.plan)
            plain.split_again_()
        return
    parameters = dict(model.named_parameters())
    for row in made.rows:
        parameter = parameters[row.name]
        if parameter.is_meta:
            raise ValueError(
                f"{row.name} is on the meta device: call model.to_empty(device=) first"
            )
        if not is_trainable_kind(parameter):
            continue
        if row.base_init is None:
            raise ValueError(
                f"the plan holds no init for {row.name}: make it with parametrize_ and a factory "
                "as base, so that the base model can be measured"
            )
        draw_row_(parameter, row, made.rulebook)
    zero_padding_rows_(model)
    warn_of_own_values(made.rows)


def remove_(model: nn.Module) -> Plan | None:
    """Take the hooks and attention scales off again and forget the plan; weights stay as they are.

    Reparametrized weights become plain ones of the same values.

    Returns:
        the plan that was removed; None if the model was reparametrized only.

    Raises:
        ValueError: the model has no plan and no reparametrized weights, or u-muP's plan.
    """
    if _plain_weights_(model) and plan_of(model) is None:
        return None
    made = require_plan(model)
    planner_of(made.parametrization).remove_(model, made)
    return made


def fold_(model: nn.Module, *, example: Any = None) -> None:
    """Fold every multiplier into the weights: the same function as a plain model, for export.

    Logits stay equal to rounding and the state_dict keys are those of the plain model. Attention
    scales are folded into the query projections, so code that recomputes 1/sqrt(d_head) is right.
    The factor of a tied readout goes into the gain of the norm in front of it. Reparametrized
    weights become plain ones of the same values.

    Args:
        model: the model, under a plan.
        example: what to call the model with (a batch, or its inputs), which is done to find the
            gain in front of a tied readout; a few token ids if left out.

    Raises:
        ValueError: the model has no plan; or a multiplier sits on a tied readout without a gain in
            front of it or on a residual branch without weights, or an attention module's queries
            cannot be found, so that no plain model has this function. The model is then as it was.
    """
    if _plain_weights_(model) and plan_of(model) is None:
        return
    made = require_plan(model)
    refuse_masked(model)
    planner_of(made.parametrization).fold_(model, made, example)
    unhook_(model)
    remember_(model, None)


def _plain_weights_(model: nn.Module) -> bool:
    require_model(model)
    if not is_reparametrized(model):
        return False
    unreparametrize_(model)
    return True


@contextmanager
def _planning(
    model: nn.Module,
    scheme: Parametrization,
    probes: tuple[Any, Any],
    roles: Overrides | None,
    densities: Mapping[str, float] | None,
) -> Iterator[tuple[PlainWeights, Densities]]:
    """The model, and the base and wider probe that were given, with plain weights and no masks."""
    require_apart(model)
    with _nothing_is_garbage(), nothing_cached(model), plain_weights(model, *probes) as plain:
        refuse_computed(model, roles or ())
        if scheme.unit_scaled:
            refuse_masked(model)  # it has no rule for them, and replaces the layers that have them
            densities = None
        with without_masks(model, plain.base, plain.wider, densities) as masks:
            yield plain, masks


def _under_masks(made: Plan, masks: Densities) -> Plan:
    rows = tuple(named_under_masks(made.rows, masks))
    return made if rows == made.rows else replace(made, rows=rows)


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Pauses the collector: of what planning builds, next to nothing hangs together in circles.

    Every look of its at all of torch's objects costs a third of planning a large model on meta.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
