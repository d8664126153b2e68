"""The frameworks that a plan can be exported to, and what they are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from paramz.plan.collapsed import collapse_notes
from paramz.plan.export.entries import Contents, Names, check_names, fused, make_entries
from paramz.plan.export.export import Export
from paramz.plan.export.loops import deepspeed, trainer
from paramz.plan.export.megatron import megatron
from paramz.plan.export.nanochat import MUON, nanochat
from paramz.plan.export.olmo_core import olmo_core
from paramz.plan.export.torchtitan import torchtitan
from paramz.plan.groups import HIDDEN_ROLES, is_matrix_of
from paramz.plan.row import ModuleScale, Row, Slice
from paramz.plan.rulebook import Rulebook
from paramz.plan.settings import Settings

FRAMEWORKS: Mapping[str, Callable[[Contents], Export]] = {
    "megatron": megatron,
    "torchtitan": torchtitan,
    "olmo-core": olmo_core,
    "nanochat": nanochat,
    "deepspeed": deepspeed,
    "trainer": trainer,
}


@dataclass(frozen=True)
class Source:
    """What of a plan is exported; the fields are those of `paramz.Plan`."""

    rulebook: Rulebook
    rows: Sequence[Row]
    attention: Sequence[ModuleScale] = ()
    multipliers: Mapping[str, float] = field(default_factory=dict)
    branches: Mapping[str, float] = field(default_factory=dict)
    computed: Sequence[Row] = ()


def exported(
    framework: str, source: Source, settings: Sequence[Settings], names: Names = ()
) -> Export:
    """A plan in a framework's settings, see `paramz.Plan.export`.

    Args:
        framework: a name in `FRAMEWORKS`.
        source: what of the plan is exported.
        settings: of one optimizer, or of two: that of hidden matrices and that of the rest.
        names: patterns and replacements, from the plan's names to the framework's.

    Raises:
        ValueError: see `paramz.Plan.export`.
        KeyError: the table has no rule for an optimizer and a tensor's role.
    """
    if framework not in FRAMEWORKS:
        raise ValueError(f"{framework!r} is none of {', '.join(FRAMEWORKS)}")
    check_names(source.rows, names)
    if framework == "nanochat" and settings[0].family.shape_factor:
        settings = [replace(settings[0], own=MUON), *settings[1:]]
    first, family = settings[0], settings[0].family
    matrices = [row for row in source.rows if is_matrix_of(row, HIDDEN_ROLES, family)]
    parts = [(source.rows, first)]
    if len(settings) == 2:
        rest = [row for row in source.rows if row not in matrices]
        parts = [(matrices, first), (rest, settings[1])]
    made = [entry for rows, of in parts for entry in make_entries(source.rulebook, rows, of, names)]
    order = {row.name: index for index, row in enumerate(source.rows)}
    made.sort(key=lambda entry: order[entry.tensors[0]])
    asked = " and ".join(f"{each.family.name} lr {each.lr:g}" for each in settings)
    contents = Contents(
        title=f"{source.rulebook.scheme.name}, {asked} at the base",
        entries=fused(made),
        settings=tuple(settings),
        unheld=tuple(_unheld(source)),
        attention=tuple(source.attention),
    )
    return FRAMEWORKS[framework](contents)


def _unheld(source: Source) -> Iterator[str]:
    """What the plan changes in modules, one sentence for each kind of module."""
    said: list[tuple[str, str, str]] = []
    for scale in source.attention:
        if scale.value != scale.plain:
            attends = scale.kind in ("attention", "switch")
            said.append(
                (
                    "attention" if attends else scale.kind,
                    scale.module,
                    f"{scale.attribute} = {scale.value:.6g}",
                )
            )
    said += [
        ("multiplier", path, f"what goes in (of an embedding: what comes out) times {c:.6g}")
        for path, c in source.multipliers.items()
    ]
    said += [("branch", path, f"output times {c:.6g}") for path, c in source.branches.items()]
    for kind in dict.fromkeys(kind for kind, *_ in said):
        lines = [f"{path}: {what}" for this, path, what in said if this == kind]
        for line in collapse_notes(lines):
            yield f"{kind}: {line} (set it in the model's code; paramz.parametrize_ does)"
    lines = [
        f"{row.name}[{part.index}]: starts at {factor:.6g} times the std of its other rows"
        for row in source.rows
        for part in row.slices
        if part.spans and (factor := _against_rest(source.rulebook, row, part)) != 1.0
    ]
    for line in collapse_notes(lines):
        yield f"init: {line} (multiply it in the model's code; paramz.parametrize_ does)"
    if source.rulebook.scheme.unit_scaled:
        yield "the forward pass: it is that of paramz.nn's unit-scaled layers"
    if source.computed:
        names = ", ".join(row.name for row in source.computed[:3])
        yield f"weights that are computed from others ({names}, ...): paramz.reparametrize_"


def _against_rest(rulebook: Rulebook, row: Row, part: Slice) -> float:
    """What the init of a slice is to that of the rows beside it, over what it is in the base."""
    own = row.of(part)
    return rulebook.weight(own).init_std(own.ratios) / rulebook.weight(row).init_std(row.ratios)
