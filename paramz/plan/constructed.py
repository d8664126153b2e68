"""Is a constructed optimizer the plan's? Its groups say what they were planned for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy.tensors import listed
from paramz.plan.groups import NAMES, PLANNED_FACTOR, PLANNED_FOR, PLANNED_LR
from paramz.plan.matching import trainable_rows
from paramz.plan.own_factor import factor_words, own_factor
from paramz.plan.row import Row
from paramz.theory.families import FAMILIES, Family
from paramz.theory.families import family as find_family


@dataclass(frozen=True, eq=False)
class _Group:
    """A group of a constructed optimizer, with what it was planned for."""

    optimizer: Any
    values: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of its tensors in the plan; empty if it was not made by a plan."""
        found: list[str] = self.values.get(NAMES, [])
        return found

    @property
    def shown(self) -> str:
        """What to call it in a message."""
        return f"the group of {listed(self.names, 2)} in {type(self.optimizer).__name__}"


def problems(
    rows: Sequence[Row], optimizers: Sequence[Any], model: nn.Module | None
) -> Iterator[str]:
    """What of constructed optimizers is not as the plan has it, one sentence each.

    Args:
        rows: those of the plan.
        optimizers: all that train the model.
        model: the model, to know which of its tensors are frozen; None if all are trained.
    """
    optimizers = [_inner(each) for each in optimizers]
    groups = [_Group(each, values) for each in optimizers for values in each.param_groups]
    planned = [group for group in groups if group.names and PLANNED_LR in group.values]
    for group in groups:
        if group not in planned and group.values["params"]:
            yield _unplanned(group)
    yield from _lost(rows, planned, model)
    for optimizer in optimizers:
        own = [group for group in planned if group.optimizer is optimizer]
        yield from _moved(own)
        for group in own:
            yield from _for_another(group)


def _inner(optimizer: Any) -> Any:
    """The optimizer inside wrappers, such as Accelerate's."""
    while hasattr(inside := getattr(optimizer, "optimizer", None), "param_groups"):
        optimizer = inside
    return optimizer


def _unplanned(group: _Group) -> str:
    name = type(group.optimizer).__name__
    return (
        f"{name} has a group of {len(group.values['params'])} tensors that no plan made, all at lr "
        f"{float(group.values['lr'] or 0.0):.4g}, so the plan's learning rates are not used: give "
        f"it the plan's groups, as in {name}(plan.param_groups(model, {name}, lr=...))"
    )


def _lost(rows: Sequence[Row], groups: Sequence[_Group], model: nn.Module | None) -> Iterator[str]:
    """Tensors in no group, in two, or no longer the model's."""
    counts = Counter(name for group in groups for name in group.names)
    known = {row.name for row in rows}
    strange = [name for name in counts if name not in known]
    if strange:
        yield f"groups hold {listed(strange)}, which the plan does not know: another plan made them"
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        yield f"{listed(twice)} is in more than one group, so it is trained more than once"
    cut = [g for g in groups if len(g.names) != len(g.values["params"])]
    for group in cut:
        yield (
            f"{group.shown} was planned with {len(group.names)} tensors and has "
            f"{len(group.values['params'])}: make the groups anew after changing the model"
        )
    if model is None:
        lost = [row.name for row in rows if not counts[row.name]]
        hint = " (if they are frozen, pass model=, which shows it)"
    else:
        trained = trainable_rows(rows, model)
        lost, hint = [row.name for row, _ in trained if not counts[row.name]], ""
        own = {row.name: parameter for row, parameter in trained}
        stale = [
            name
            for group in groups
            if group not in cut
            for name, parameter in zip(group.names, group.values["params"], strict=True)
            if name in own and own[name] is not parameter
        ]
        if stale:
            yield (
                f"the optimizer holds another tensor than the model's {listed(stale)}: the model's "
                "parameters were replaced after the groups were made. Make them last, after "
                "sharding, moving or resizing"
            )
    if lost and groups:
        yield (
            f"{listed(lost)} is in no group, so it is not trained: pass all of the plan's groups "
            f"to the optimizers, and all optimizers here{hint}"
        )


def _moved(groups: Sequence[_Group]) -> Iterator[str]:
    """The ratios between the groups' learning rates are those of the plan."""
    factors = {
        group: float(group.values["lr"]) / group.values[PLANNED_LR]
        for group in groups
        if group.values[PLANNED_LR] > 0
    }
    if factors and not math.isclose(min(factors.values()), max(factors.values()), rel_tol=1e-6):
        low, high = min(factors, key=lambda g: factors[g]), max(factors, key=lambda g: factors[g])
        yield (
            f"the ratios between the learning rates are no longer the plan's: {high.shown} has "
            f"{float(high.values['lr']):.4g}, {factors[high]:.4g} times what was planned, and "
            f"{low.shown} {float(low.values['lr']):.4g}, {factors[low]:.4g} times. Whatever sets "
            "them (a scheduler with an absolute lr, a loop over the groups) must multiply all by "
            "one factor; paramz.check_schedule names what to do for each scheduler"
        )


def _for_another(group: _Group) -> Iterator[str]:
    """The optimizer multiplies its steps by what the groups count on."""
    options = {key: value for key, value in group.values.items() if key != "params"}
    meant = _family(group.values.get(PLANNED_FOR), options)
    if meant is None:
        return  # a family that the user declared
    kind = type(group.optimizer)
    actual = next((f for c in kind.__mro__ if (f := _family(c, options)) is not None), None)
    if actual is not None and _scaling(actual) != _scaling(meant):
        yield (
            f"{group.shown} was planned for {meant.name}, whose learning rates are other ones than "
            f"those of {kind.__name__}: plan.param_groups(model, {kind.__name__}, lr=...)"
        )
        return
    if not (meant.shape_factor or meant.relative):
        return
    try:
        has = own_factor(actual or meant, group.optimizer, options).name
    except ValueError as error:
        yield f"{group.shown}: {error}"
        return
    counted = group.values[PLANNED_FACTOR]
    if has != counted:
        yield (
            f"{group.shown} counts on the factor {counted!r} that its optimizer puts on its steps, "
            f"and this {kind.__name__} has {has!r}, so its learning rates are right at the base "
            "only. Make the groups for its class, with the options that its constructor gets: "
            f"plan.param_groups(model, {kind.__name__}, lr=..., {factor_words(meant)})"
        )


def _family(name: Any, options: dict[str, Any]) -> Family | None:
    """The family that a class or name has, with a group's options; None if paramz knows none."""
    called = name.__name__ if isinstance(name, type) else str(name)
    if called.lower().replace("_", "").replace("-", "") not in FAMILIES:
        return None
    return find_family(called, exponent=options.get("exponent"), graft=options.get("graft"))


def _scaling(family: Family) -> tuple[Any, ...]:
    """What the rules of a family follow from; K-FAC's class makes FOOF, too."""
    if family.column in ("kfac", "foof"):
        return ("kfac",)
    return family.column, family.lr_shift, family.rotated, family.exponent, family.graft
