"""Which way a parametrization is planned and applied: relative to a base model, or unit-scaled.

`planner_of` is the one place that chooses. Every verb (`parametrize_`, `fold_`, `remove_` ...) asks
the planner of its scheme.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from paramz.anatomy.adapters import require_fresh, require_rules
from paramz.anatomy.branches import Branches
from paramz.anatomy.declared import require_declaration
from paramz.anatomy.factors import Factors
from paramz.anatomy.facts import Facts, read_facts
from paramz.anatomy.masks import Densities
from paramz.anatomy.probes import Factory, Probes, build_probes
from paramz.apply.fold import fold_weights_
from paramz.apply.fresh import refuse_changed, refuse_trained
from paramz.apply.hooks import hooked_inputs, install_, uninstall_
from paramz.apply.initial import initialise_
from paramz.apply.starts import moving_starts
from paramz.nn.convert.fold import fold_scales_
from paramz.nn.convert.unit_scale import unit_scaled_plan
from paramz.nn.residual import Alphas
from paramz.plan.draft import draft_plan, find_rows
from paramz.plan.on_model import plan_of, remember_, set_scale_
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.sparse import chosen_notes, mask_notes, named_under_masks, with_densities
from paramz.theory.alternatives import require_whole
from paramz.theory.rules import USUAL_ATTENTION, Parametrization
from paramz.theory.tables import PARAMETRIZATIONS


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a caller of `paramz.parametrize_` asks for; the attributes are its arguments.

    But for ``computed``, the names of the weights that are reparametrized, and plain for a while,
    and ``densities`` of the masks that are off for as long.
    """

    scheme: Parametrization
    base: nn.Module | Factory | int | None = None
    base_width: int | None = None
    wider: nn.Module | int | None = None
    roles: Overrides | None = None
    branches: Branches | None = None
    factors: Factors | None = None
    fold: bool = True
    init: bool = True
    trained: bool = False
    example: Any = None
    alphas: Alphas | None = None
    computed: frozenset[str] = frozenset()
    densities: Densities = field(default_factory=Densities)

    def __post_init__(self) -> None:
        require_declaration(self.branches)


@dataclass(frozen=True)
class Planner:
    """How schemes of one kind are planned and applied.

    Attributes:
        draft: the plan of a model, which stays as it is.
        apply_: puts a model under a scheme.
        remove_: takes a plan off again, leaving the weights.
        fold_: makes a model plain with the same function.
        replaces_layers: the model has other layers afterwards, and newly drawn weights.
    """

    draft: Callable[[nn.Module, Request], Plan]
    apply_: Callable[[nn.Module, Request], Plan]
    remove_: Callable[[nn.Module, Plan], None]
    fold_: Callable[[nn.Module, Plan, Any], None]
    replaces_layers: bool


def planner_of(scheme: Parametrization) -> Planner:
    """The planner of a scheme.

    >>> import paramz
    >>> planner_of(paramz.MUP).replaces_layers, planner_of(paramz.U_MUP).replaces_layers
    (False, True)
    """
    return _UNIT_SCALED if scheme.unit_scaled else _RELATIVE


# ---- Relative to a base model --------------------------------------------------------------------


def _draft(model: nn.Module, asked: Request) -> Plan:
    facts, probes = _read(model, asked, measure=False)
    made = draft_plan(facts, Rulebook(asked.scheme, asked.fold), asked.roles)
    return _sparse(model, made, asked, probes)


def _sparse(model: nn.Module, made: Plan, asked: Request, probes: Probes) -> Plan:
    """The plan with the densities of its tensors."""
    rows = with_densities(made.rows, asked.scheme, asked.densities, probes)
    if "rank" in asked.scheme.scales:  # weights that adapters are on are as they were trained
        return replace(made, rows=tuple(rows))
    notes = mask_notes(model, rows, asked.scheme, asked.densities)
    return replace(made, rows=tuple(rows), notes=(*made.notes, *notes))


def _apply_(model: nn.Module, asked: Request) -> Plan:
    scheme, before = asked.scheme, plan_of(model)
    if asked.alphas is not None:
        raise ValueError(
            f"alphas are hyperparameters of u-mup, and {scheme.name} has none: leave alphas out"
        )
    scales_values = asked.init and before is None
    adapted = "rank" in scheme.scales
    if scales_values and not asked.trained:
        (require_fresh if adapted else refuse_trained)(model)
    # An earlier plan changed scales and hooks; the same call again must find what it found then.
    facts, probes = _read(model, asked, measure=asked.init)
    if before is not None:
        rows = with_densities(
            find_rows(facts, scheme, asked.roles), scheme, asked.densities, probes
        )
        return _again(before, asked, named_under_masks(rows, asked.densities))
    made = draft_plan(facts, Rulebook(scheme, asked.fold), asked.roles)
    made = _sparse(model, made, asked, probes)
    if scales_values:
        made = replace(made, notes=(*made.notes, *chosen_notes(asked.densities)))
        if not asked.trained and not adapted:
            refuse_changed(model, probes, made.rows, asked.computed)
        made = initialise_(model, probes, made)
        if scheme.attention != USUAL_ATTENTION and not adapted:  # SP keeps what the code has
            starts = moving_starts(model, made.rows, made.rulebook)
            for said in starts:
                warnings.warn(said, stacklevel=3)  # parametrize_'s caller
            made = replace(made, notes=(*made.notes, *starts))
    install_(model, made)
    return made


def _read(model: nn.Module, asked: Request, *, measure: bool) -> tuple[Facts, Probes]:
    require_whole(asked.scheme.name.split("+"))
    scales = asked.scheme.scales
    if "rank" in scales:
        wide = bool(scales & {"fan_in", "fan_out"})
        require_rules(model, _for_adapters(asked.scheme), wide=wide)
        _require_untouched(asked)
    probes = build_probes(
        model,
        asked.base,
        base_width=asked.base_width,
        wider=asked.wider,
        measure=measure,
        scales=scales,
    ).matched(model, scales)
    asked_for = asked.branches, asked.factors, asked.example
    facts = read_facts(model, probes, scales, *asked_for)
    if "rank" in scales:  # an earlier plan's factors, below adapters, that the base may not have
        there = hooked_inputs(probes.base)
        hooked = {path: f / there.get(path, 1.0) for path, f in hooked_inputs(model).items()}
        facts = replace(facts, hooked=hooked)
    return facts, probes


def _require_untouched(asked: Request) -> None:
    """Raise if what was asked for would change the model that adapters are put on."""
    name, own = asked.scheme.name, _for_adapters(asked.scheme)
    if not asked.fold:
        raise ValueError(
            f"{name}: fold=False puts multipliers on layers that adapters leave as they were "
            "trained. Use fold=True"
        )
    if asked.scheme.scales & {"depth", "experts"}:
        raise ValueError(
            f"{name} has rules for depth or experts, whose factors would change the trained model "
            f"that the adapters are put on. Use '{own}', or 'mup+{own}' where the width differs, "
            "too"
        )


def _for_adapters(scheme: Parametrization) -> str:
    """The name of the scheme that has rules for adapters, of those that were multiplied."""
    known = [name for name in scheme.name.split("+") if name in PARAMETRIZATIONS]
    return next((n for n in known if "rank" in PARAMETRIZATIONS[n].scales), scheme.name)


def _again(before: Plan, asked: Request, rows: list[Row]) -> Plan:
    same = (
        before.parametrization == asked.scheme
        and before.folded == asked.fold
        and [row.planned for row in before.rows] == rows
    )
    if same:
        return before
    trained = "rank" in asked.scheme.scales  # what adapters are on is to compute what it does
    way = (
        "Call paramz.fold_(model) first: what it computes stays, in its weights alone."
        if trained
        else "Build it afresh, or call paramz.remove_(model) first (its weights keep their init)."
    )
    raise ValueError(
        f"the model is already under {before.parametrization.name} with another base or other "
        f"roles. {way}"
    )


_RELATIVE = Planner(_draft, _apply_, uninstall_, fold_weights_, replaces_layers=False)


# ---- Unit-scaled (u-muP) -------------------------------------------------------------------------


def _draft_unit_scaled(model: nn.Module, asked: Request) -> Plan:
    # The layers are replaced in a copy whose weights are the model's own, as none of them changes.
    shared = {
        id(one): nn.Parameter(one.detach(), one.requires_grad)
        for one in model.parameters()
        if type(one) is nn.Parameter
    }
    copied = copy.deepcopy(model, shared)
    return unit_scaled_plan(copied, asked.example, roles=asked.roles, init=False)


def _apply_unit_scaled_(model: nn.Module, asked: Request) -> Plan:
    if asked.init and plan_of(model) is None and not asked.trained:
        refuse_trained(model)
    made = unit_scaled_plan(
        model,
        asked.example,
        roles=asked.roles,
        alphas=asked.alphas,
        init=asked.init,
        before=plan_of(model),
    )
    remember_(model, made)
    return made


def _cannot_remove(model: nn.Module, plan: Plan) -> None:
    raise ValueError(
        f"{plan.parametrization.name} has replaced the model's layers, which cannot be undone: "
        "build the model afresh, or export its function with paramz.fold_"
    )


def _fold_unit_scaled_(model: nn.Module, plan: Plan, example: Any) -> None:
    fold_scales_(model)
    fold_weights_(model, plan, example)
    for scale in plan.attention:
        if scale.kind == "switch":  # the layers stay, which need it
            set_scale_(model, scale, scale.value)


_UNIT_SCALED = Planner(
    _draft_unit_scaled, _apply_unit_scaled_, _cannot_remove, _fold_unit_scaled_,
    replaces_layers=True,
)  # fmt: skip
