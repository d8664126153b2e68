"""Draft a plan: what a parametrization means for the facts of a model, before it is applied."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

from paramz.anatomy.branches import Residual
from paramz.anatomy.facts import Facts, TensorFacts
from paramz.anatomy.tensors import ModelTensor, Use, listed
from paramz.plan.bent import bent_weights
from paramz.plan.coded import notes_on_code, notes_on_heads, with_code
from paramz.plan.experts import router_notes, thin_notes, with_thin
from paramz.plan.factors import (
    code_multipliers,
    growing_dots,
    module_scales,
    moving_logits,
    nested_switches,
    unheld_factors,
    unreachable_heads,
)
from paramz.plan.generated import generated_matrices
from paramz.plan.normed import normed_weights
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides, find_roles
from paramz.plan.row import FROZEN, Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.sliced import notes_on_slices
from paramz.plan.unmoved import depth_notes, experts_notes
from paramz.plan.untold import failure_notes, notes_on_places, trained_and_tied
from paramz.theory.power import ONE, Power
from paramz.theory.rules import USUAL_ATTENTION, Parametrization


def draft_plan(facts: Facts, rulebook: Rulebook, roles: Overrides | None = None) -> Plan:
    """The plan of a model, without the measured init.

    Args:
        facts: of the model, read with the scales of the parametrization.
        rulebook: the parametrization's.
        roles: ordered overrides ``{regex: role or Axes}``.

    Raises:
        ValueError: as for `find_rows`, or a multiplier has no place with ``fold=False``.

    Warns:
        UserWarning: heads grow, and the factor on their logits is out of reach; a product of two
            activations that the model puts out grows; or the model could not be run to see which
            of its maps are readouts.
    """
    scheme = rulebook.scheme
    rows = find_rows(facts, scheme, roles)
    attention = scheme.attention
    larger: list[str] = []
    if "rank" in scheme.scales:
        larger = notes_on_heads(facts)
        facts = replace(facts, heads=(), embeddings=(), declared=(), written=())
        attention = USUAL_ATTENTION
    in_code: list[str] = []
    if attention != USUAL_ATTENTION:  # SP, NTP and adapters keep what is in the model's code
        in_code += [*unreachable_heads(facts), *growing_dots(facts, rows), *unheld_factors(facts)]
        in_code += [*moving_logits(facts), *generated_matrices(facts, rows)]
        in_code += [*normed_weights(facts, rows), *bent_weights(facts, rows)]
    sliced, faint = notes_on_slices(facts.tensors, rows)
    doubts = [*failure_notes(facts.failure), *facts.doubts, *in_code, *_doubts(facts, rows), *faint]
    for doubt in doubts if scheme.scales & {"fan_in", "fan_out"} else ():
        warnings.warn(doubt, stacklevel=4)  # parametrize_ or make_plan's caller
    told = (*router_notes(rows, rulebook), *thin_notes(rows, scheme), *experts_notes(rows))
    told = (*told, *notes_on_code(rows), *larger)
    notes = (*doubts, *sliced, *told, *facts.notes)
    branches: dict[str, float] = {}
    if facts.residual is not None:
        alone = _alone_notes(facts.residual, scheme.branch)
        notes = (
            *depth_notes(facts.residual, scheme.branch),
            *facts.residual.notes,
            *alone,
            *notes,
        )
        branches = branch_hooks(facts.residual, scheme.branch, rulebook.folded)
    scales = module_scales(facts, attention)
    multipliers = _multipliers(facts, rulebook, rows)
    held, code_notes = code_multipliers(facts, attention)
    notes = (*notes, *code_notes)
    for path, value in held.items():
        multipliers[path] = multipliers.get(path, 1.0) * value
    multipliers = {path: value for path, value in multipliers.items() if value != 1.0}
    _refuse_uncalled(facts, multipliers)
    return Plan(
        parametrization=scheme,
        rows=tuple(rows),
        attention=(*scales, *nested_switches(facts, scales, (*multipliers, *branches))),
        multipliers=multipliers,
        branches=branches,
        behind={
            each.module: each.held
            for each in facts.written
            if each.behind and each.held is not None and each.module in held
        },
        folded=rulebook.folded,
        notes=notes,
    )


def _refuse_uncalled(facts: Facts, multipliers: Mapping[str, float]) -> None:
    """A hook on a module that nobody calls would multiply nothing."""
    for path in facts.uncalled & multipliers.keys():
        raise ValueError(
            f"{path} shares its weight with another layer and has to multiply what goes in by "
            f"{multipliers[path]:.4g}, but the model's code never calls it and takes its weight "
            f"alone (as in F.linear(x, {path}.weight)). Call the layer itself, self.{path}(x); or "
            "untie it. If a call with other inputs does call it, pass them as example="
        )


def _doubts(facts: Facts, rows: Sequence[Row]) -> list[str]:
    """What to say of roles that neither a run nor the user tells, one sentence for each kind."""
    unsaid = ("input", "output", "inward", "latent", "outward")
    return notes_on_places(
        {
            tensor.name: tensor.place
            for tensor, row in zip(facts.tensors, rows, strict=True)
            if row.role in unsaid and not row.told and not row.why.startswith(("adapter", FROZEN))
        },
        [tensor.name for tensor in facts.tensors],
    )


def find_rows(facts: Facts, scheme: Parametrization, roles: Overrides | None = None) -> list[Row]:
    """One row per parameter with all its ratios.

    Raises:
        ValueError: as for `find_roles`, or the width grows under a scheme that has no rule for it.
    """
    if "rank" in scheme.scales and not scheme.scales & {"fan_in", "fan_out"}:
        other = next((t for t in facts.tensors if _differs_beside_rank(t)), None)
        if other is not None:
            raise _no_width(other.name, other.tensor.shape, other.base_shape, scheme)
    rows = find_roles(facts.tensors, roles)
    if "rank" in scheme.scales:
        _refuse_trained_tied(facts, rows, Rulebook(scheme))
        # What adapters are put on is trained: its function stays, with all factors in it.
        rows = [
            replace(row, readouts=(), why=row.why if row.adapted or not t.tensor.frozen else FROZEN)
            for row, t in zip(rows, facts.tensors, strict=True)
        ]
        rows = with_code(rows, facts)
    wider = next((row for row in rows if any(r != 1.0 for r in row.widths)), None)
    if wider is not None and not _for_width(scheme):
        raise _no_width(wider.name, wider.shape, wider.base_shape, scheme)
    if "thin" in scheme.scales:
        rows = with_thin(rows)
    if facts.residual is None:
        return rows
    return [
        _inside_branch(row, facts.residual, tensor.layers)
        for row, tensor in zip(rows, facts.tensors, strict=True)
    ]


def _refuse_trained_tied(facts: Facts, rows: Sequence[Row], rulebook: Rulebook) -> None:
    """A table that is trained beside adapters, and read out with, too, cannot have two rates."""
    for row, tensor in zip(rows, facts.tensors, strict=True):
        factor = _readout_factor(facts, rulebook, row) if row.readouts else 1.0
        if factor != 1.0 and not tensor.tensor.frozen and not row.told:
            raise ValueError(trained_and_tied(tensor.tensor, factor))


def _differs_beside_rank(facts: TensorFacts) -> bool:
    moving = () if facts.adapter is None else facts.adapter.moving
    sizes = zip(facts.tensor.shape, facts.base_shape, strict=False)
    return any(a != b and axis not in moving for axis, (a, b) in enumerate(sizes))


def _no_width(
    name: str, shape: tuple[int, ...], base: tuple[int, ...], scheme: Parametrization
) -> ValueError:
    return ValueError(
        f"{name} is {shape} and {base} in the base, but {scheme.name} has no rule for width. "
        f"Multiply it with a scheme that has: 'mup+{scheme.name}'"
    )


def _for_width(scheme: Parametrization) -> bool:
    """Whether a table says how weights move with width; how a router starts alone does not."""
    rules = {key: rule for key, rule in scheme.rules.items() if key[1] != "router"}
    return bool(replace(scheme, rules=rules).scales & {"fan_in", "fan_out"})


def _inside_branch(row: Row, residual: Residual, layers: float) -> Row:
    """The row with its depth ratio, if it is inside a residual branch.

    A weight that different blocks have in common is used as often as one block that runs in their
    place.

    Args:
        row: of the tensor.
        residual: the model's branches.
        layers: how many layers have the tensor, target / base.
    """
    block = residual.blocks.get(row.name)
    if block is None:
        return row
    ratios = dict(residual.ratios[block])
    loops = ratios.pop("loops", 1.0) * layers
    if loops != 1.0:
        ratios["loops"] = loops
    return replace(
        row,
        ratios={**row.ratios, **ratios},
        block=block,
        ends=row.name in residual.ends,
    )


def branch_hooks(residual: Residual, power: Power, fold: bool) -> dict[str, float]:
    """Module path -> factor on its output, where the branch factor cannot be or is not folded.

    Args:
        residual: the model's branches.
        power: the scheme's factor on a branch.
        fold: it is folded into weights where there are any.

    Raises:
        ValueError: a parameter is added by itself, where no hook reaches it, with ``fold=False``.
    """
    grown = sorted(n for n in residual.alone if power(residual.ratios[residual.blocks[n]]) != 1.0)
    if grown and not fold:
        raise ValueError(
            f"{listed(grown, 4)}: added to the stream by itself, where only its own values can take"
            " the factor of depth, which fold=False does not do. Use fold=True, or let the module "
            "at the end of the branch add it (as the bias of an nn.Linear)"
        )
    factors = {
        residual.called[path]: power(residual.ratios[residual.modules[path]])
        for path in (residual.hooked if fold else residual.modules)
    }
    return {path: factor for path, factor in factors.items() if factor != 1.0}


def _alone_notes(residual: Residual, power: Power) -> list[str]:
    """That parameters take the factor of a branch without being the end of one."""
    grown = sorted(n for n in residual.alone if power(residual.ratios[residual.blocks[n]]) != 1.0)
    said = "added to the stream by itself, so it takes the factor of a residual branch"
    return [f"{listed(grown, 2)}: {said}"] if grown else []


def _multipliers(facts: Facts, rulebook: Rulebook, rows: Sequence[Row]) -> dict[str, float]:
    """Module path -> factor on its input, where folding is impossible or not wanted."""
    found = {}
    for row, tensor in zip(rows, (each.tensor for each in facts.tensors), strict=True):
        for path in row.readouts:
            found[path] = _readout_factor(facts, rulebook, row)
        power = rulebook.of_role(row.role).multiplier
        if power != ONE:
            use = _place_for_factor(
                row, tensor, f"{rulebook.scheme.name} puts a multiplier {power}"
            )
            found[use.module] = power(row.ratios)
    return {path: value for path, value in found.items() if value != 1.0}


def _readout_factor(facts: Facts, rulebook: Rulebook, row: Row) -> float:
    """The factor on the input of a tied readout.

    One tensor has two roles there. It has the init and lr of the input, so the smaller effective
    weight of the readout has to come from a multiplier.
    """
    scheme = rulebook.scheme
    wanted = Rulebook(scheme).of_role("output").init_std
    own = rulebook.of_role(row.role).init_std
    factor = wanted({"fan_in": row.ratios["fan_out"]}) / own(row.ratios)
    if facts.scaled_readout and scheme.attention != USUAL_ATTENTION:
        factor *= row.ratios["fan_out"] ** 0.5
    return factor


def _place_for_factor(row: Row, tensor: ModelTensor, what: str) -> Use:
    """The module whose input can be multiplied in place of a tensor.

    Raises:
        ValueError: there is none.
    """
    first = tensor.uses[0]
    sharing = {use.module: use.owner for use in tensor.uses[1:] if use.module not in row.readouts}
    if any(owner != first.owner for owner in sharing.values()):
        raise ValueError(
            f"{row.name}: {what} in front of it, and {', '.join(sorted(sharing))} shares the "
            "tensor, which fold=False does not do. Use fold=True."
        )
    if not first.takes_factor:
        raise ValueError(
            f"{row.name}: {what} in front of it, and only the weight of a linear, conv or "
            f"embedding layer can take one as a hook, not the {first.local} of {first.kind}. Use "
            "fold=True."
        )
    return first
