"""Draft a plan: roles, branches, attention scales and hooks, before anything is applied."""

from __future__ import annotations

from torch import nn

from paramz.anatomy.attention import USUAL, find_attention
from paramz.anatomy.branches import Branches, Residual, branch_hooks, find_branches
from paramz.anatomy.embeddings import find_embed_scales, scales_tied_readout
from paramz.anatomy.moe import gate_notes
from paramz.anatomy.probes import Probes
from paramz.plan.plan import Plan, weight_rule
from paramz.plan.roles import Overrides, Row, find_roles
from paramz.theory.rules import ONE, Parametrization


def draft_plan(
    model: nn.Module,
    scheme: Parametrization,
    probes: Probes,
    roles: Overrides | None,
    branches: Branches | None,
    fold: bool,
) -> Plan:
    """The plan of a model, without the measured init."""
    rows, residual = find_rows(model, scheme, probes, roles, branches)
    notes = []
    if residual is not None:
        factor = scheme.branch({"depth": residual.ratio})
        notes.append(f"depth times {residual.ratio:.4g}: residual branches times {factor:.4g}")
    if "experts" in scheme.scales:
        notes += gate_notes(model, probes.base, probes.twin)
    # SP and NTP are what the code says, with its own factors.
    embeddings = find_embed_scales(model, probes) if scheme.attention != USUAL else ()
    return Plan(
        parametrization=scheme,
        rows=tuple(rows),
        attention=(*find_attention(model, probes, scheme.attention), *embeddings),
        multipliers=_multipliers(model, scheme, rows, fold),
        branches=branch_hooks(model, residual, scheme.branch, fold) if residual else {},
        folded=fold,
        notes=tuple(notes),
    )


def find_rows(
    model: nn.Module,
    scheme: Parametrization,
    probes: Probes,
    roles: Overrides | None,
    branches: Branches | None,
) -> tuple[list[Row], Residual | None]:
    """One row per parameter with all its ratios, and the residual branches if depth is scaled.

    Raises:
        ValueError: as for `find_roles` and `find_branches`, or the width grows under a scheme that
            has no rule for it.
    """
    rows = find_roles(model, probes, roles, scheme.scales)
    wider = next((row for row in rows if any(r != 1.0 for r in row.widths)), None)
    if wider is not None and not scheme.scales & {"fan_in", "fan_out"}:
        raise ValueError(
            f"{wider.name} is {wider.shape} and {wider.base_shape} in the base, but {scheme.name} "
            f"says nothing of width. Multiply it with a scheme that does: 'mup+{scheme.name}'"
        )
    if "depth" not in scheme.scales:
        return rows, None
    residual = find_branches(model, probes.base, branches)
    return [residual.mark(row) for row in rows], residual


def _multipliers(
    model: nn.Module, scheme: Parametrization, rows: list[Row], fold: bool
) -> dict[str, float]:
    """Module path -> factor on its input, where folding is impossible or not wanted."""
    found = {}
    for row in rows:
        for path in row.readouts:
            # One tensor, two roles: init and lr of the input, so the readout's smaller effective
            # weight must come from a multiplier.
            wanted = weight_rule(scheme, "output", folded=True).init_std
            own = weight_rule(scheme, row.role, folded=fold).init_std
            found[path] = wanted({"fan_in": row.ratios["fan_out"]}) / own(row.ratios)
            if scales_tied_readout(model) and scheme.attention != USUAL:
                found[path] *= row.ratios["fan_out"] ** 0.5
        power = weight_rule(scheme, row.role, folded=fold).multiplier
        if power != ONE:
            path, _, local = row.name.rpartition(".")
            module = model.get_submodule(path)
            hookable = nn.Linear | nn.modules.conv._ConvNd | nn.Embedding
            sharing = {alias.rpartition(".")[0] for alias in row.aliases} - set(row.readouts)
            if any(model.get_submodule(other) is not module for other in sharing):
                raise ValueError(
                    f"{row.name}: {scheme.name} puts a multiplier {power} in front of it, and "
                    f"{', '.join(sorted(sharing))} shares the tensor, which fold=False does not "
                    "do. Use fold=True."
                )
            if local != "weight" or not isinstance(module, hookable):
                raise ValueError(
                    f"{row.name}: {scheme.name} puts a multiplier {power} in front of it, and only "
                    "the weight of a linear, conv or embedding layer can take one as a hook, not "
                    f"the {local} of {type(module).__name__}. Use fold=True."
                )
            found[path] = power(row.ratios)
    return {path: value for path, value in found.items() if value != 1.0}
