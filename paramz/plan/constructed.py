"""Is a constructed optimizer the plan's? Its groups say what they were planned for."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paramz.anatomy.tensors import listed
from paramz.plan.absolute import refuse_absolute
from paramz.plan.another import Group, family_of, for_another, of_unknown_classes
from paramz.plan.floored import bound_on
from paramz.plan.groups import (
    BASE_DECAY,
    BASE_EPS,
    BASE_LR,
    PLANNED_FOR,
    PLANNED_LR,
    PLANNED_RATIO,
    PLANNED_VALUES,
)
from paramz.plan.matching import trainable_rows
from paramz.plan.own_factor import class_defaults, own_factor
from paramz.plan.ratios import lr_ratio
from paramz.plan.row import Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.schedule import broken_ratios
from paramz.theory.families import WITHOUT_RULE, epsilon_option


def problems(
    rulebook: Rulebook,
    rows: Sequence[Row],
    optimizers: Sequence[Any],
    model: nn.Module | None,
    schedulers: Any = (),
) -> Iterator[str]:
    """What of constructed optimizers is not as the plan has it, one sentence each.

    Args:
        rulebook: the plan's.
        rows: those of the plan.
        optimizers: all that train the model.
        model: the model, to know which of its tensors are frozen; None if all are trained.
        schedulers: their schedules, or one.

    Raises:
        TypeError: there are no optimizers, or something else was given.

    Warns:
        UserWarning: an optimizer's class is none that paramz knows, and its groups are for one; or
            it is torch's Adafactor, whose steps bound the learning rate of a long run.
    """
    optimizers = list(_single(optimizers))
    if given := [type(each).__name__ for each in optimizers if _is_scheduler(each)]:
        raise TypeError(
            f"plan.check got {', '.join(given)} in the place of an optimizer: give learning-rate "
            "schedules by name, as in plan.check(optimizer, schedulers=scheduler)"
        )
    yield from _around(optimizers)
    optimizers = [_inner(each) for each in optimizers]
    strange = [type(each).__name__ for each in optimizers if not hasattr(each, "param_groups")]
    if strange or not optimizers:
        raise TypeError(
            f"plan.check takes the optimizers that train the model, as in plan.check(optimizer), "
            f"and got {', '.join(strange) or 'none'}"
        )
    for said in [*of_unknown_classes(optimizers), *_bounded(optimizers)]:
        warnings.warn(said, stacklevel=3)  # plan.check's caller
    by_name = {row.name: row for row in rows}
    groups = [Group(each, values) for each in optimizers for values in each.param_groups]
    planned = [group for group in groups if group.names and PLANNED_LR in group.values]
    yield from _lost(rows, planned, model)
    for optimizer in optimizers:
        own = [group for group in planned if group.optimizer is optimizer]
        others = [g for g in groups if g.optimizer is optimizer and g not in planned]
        if others := [group for group in others if group.values["params"]]:
            yield _unplanned(others)
        yield from _moved(own)
        yield from _of_two_bases(own)
        yield from _unread(optimizer, own)
        yield from (said for name in PLANNED_VALUES for said in _changed(own, name))
        found = [[*for_another(g), *_of_another_plan(rulebook, by_name, g)] for g in own]
        if wrong := [each for each in found if each]:
            yield wrong[0][0] + (
                f" ({len(wrong) - 1} more groups are the same)" if len(wrong) > 1 else ""
            )
    if len(planned) == sum(bool(group.values["params"]) for group in groups):
        several = [schedulers] if hasattr(schedulers, "step") else schedulers
        yield from filter(None, map(broken_ratios, several))


def _single(optimizers: Sequence[Any]) -> Iterator[Any]:
    """Each optimizer, also of containers of several, such as torchtitan's."""
    for optimizer in optimizers:
        several = getattr(optimizer, "optimizers", None)
        if isinstance(several, list | tuple) and all(hasattr(o, "param_groups") for o in several):
            yield from _single(several)
        else:
            yield optimizer


def _is_scheduler(given: Any) -> bool:
    """Whether it is a learning-rate schedule: torch's tell the last rates, timm's count updates."""
    tells = hasattr(given, "get_last_lr") or hasattr(given, "step_update")
    return tells and not hasattr(given, "param_groups")


def _inner(optimizer: Any) -> Any:
    """The optimizer inside wrappers, such as Accelerate's."""
    while hasattr(inside := getattr(optimizer, "optimizer", None), "param_groups"):
        optimizer = inside
    return optimizer


def _around(optimizers: Sequence[Any]) -> Iterator[str]:
    """Wrappers that change steps in a way for which there is no rule, such as TRAC."""
    for optimizer in optimizers:
        while hasattr(inside := getattr(optimizer, "optimizer", None), "param_groups"):
            name = type(optimizer).__name__
            if reason := WITHOUT_RULE.get(name.lower()):
                yield (
                    f"there is no rule for {name}, which is around {type(inside).__name__}: "
                    f"{reason}. Without it the plan's learning rates hold"
                )
            optimizer = inside


def _bounded(optimizers: Sequence[Any]) -> Iterator[str]:
    """Torch's Adafactor at learning rates that it does not take for long."""
    for optimizer in optimizers:
        rates = [float(g["lr"]) for g in optimizer.param_groups if PLANNED_LR in g]
        if isinstance(optimizer, torch.optim.Adafactor) and (said := bound_on(rates)):
            yield said


def _unplanned(groups: Sequence[Group]) -> str:
    name = type(groups[0].optimizer).__name__
    rates = sorted({float(group.values["lr"] or 0.0) for group in groups})
    at = f"all at lr {rates[0]:.4g}" if len(rates) == 1 else f"lr {rates[0]:.4g} to {rates[-1]:.4g}"
    some = "a group" if len(groups) == 1 else f"{len(groups)} groups"
    return (
        f"{name} has {some} of {sum(len(g.values['params']) for g in groups)} tensors that no plan "
        f"made, {at}, so the plan's learning rates are not used: give "
        f"it the plan's groups, as in {name}(plan.param_groups(model, {name}, lr=...))"
    )


def _lost(rows: Sequence[Row], groups: Sequence[Group], model: nn.Module | None) -> Iterator[str]:
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


def _moved(groups: Sequence[Group]) -> Iterator[str]:
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


def _of_two_bases(groups: Sequence[Group]) -> Iterator[str]:
    """All groups of one optimizer come from one learning rate of the base, by family."""
    bases: dict[str, dict[float, Group]] = {}
    for group in groups:
        if BASE_LR in group.values:
            of_family = bases.setdefault(group.values[PLANNED_FOR], {})
            of_family.setdefault(group.values[BASE_LR], group)
    for found in bases.values():
        if len(found) > 1:
            said = ", ".join(f"{lr:.4g} ({group.shown})" for lr, group in sorted(found.items()))
            yield (
                f"groups were planned from several learning rates at the base: {said}. Plan all of "
                "them in one call; role_lr={'input': ...} is for roles that are tuned apart"
            )


def _unread(optimizer: Any, groups: Sequence[Group]) -> Iterator[str]:
    """What its constructor got and its groups, which have their own, do not read."""
    name, given = type(optimizer).__name__, getattr(optimizer, "defaults", {})
    usual = class_defaults(type(optimizer), type(optimizer))
    read = (
        ("weight_decay", "weight_decay", BASE_DECAY),
        (epsilon_option(optimizer), "eps", BASE_EPS),
    )
    for option, ours, base in read:
        value, planned = given.get(option), {g.values[base] for g in groups if base in g.values}
        chosen = isinstance(value, int | float) and value != usual.get(option, value)
        if chosen and planned and value not in planned:
            yield (
                f"{name} got {option}={value!r}, which its groups do not read: theirs comes from "
                f"{', '.join(f'{each:.4g}' for each in sorted(planned))} at the base. "
                f"Give it to plan.param_groups(model, {name}, lr=..., {ours}={value!r})"
            )
    for group in groups:
        family = family_of(type(optimizer), group.values)
        if family is None:
            continue
        try:
            refuse_absolute(family, optimizer, group.values, group.values.get("weight_decay"))
        except ValueError as error:
            yield f"{name}: {error}"
            return


def _changed(groups: Sequence[Group], key: str) -> Iterator[str]:
    """Epsilon and weight decay are those of the plan, times one factor for all."""
    known = [g for g in groups if PLANNED_VALUES[key] in g.values]
    read = {g: epsilon_option(g.optimizer) if key == "eps" else key for g in known}
    pairs = [
        (float(g.values[read[g]]), float(g.values[PLANNED_VALUES[key]]), g)
        for g in known
        if isinstance(g.values.get(read[g]), int | float | torch.Tensor)
    ]
    factors = Counter(float(f"{has / wanted:.6g}") for has, wanted, _ in pairs if wanted > 0)
    factor = factors.most_common(1)[0][0] if factors else 1.0
    for has, wanted, group in pairs:
        others = "the others are as planned" if factor == 1.0 else f"others have {factor:.4g} times"
        unread = read[group] != key and key in group.values
        if math.isclose(has, wanted if unread else factor * wanted, rel_tol=1e-5):
            continue
        if unread:
            yield (
                f"{group.shown} holds {key}={group.values[key]!r}, which "
                f"{type(group.optimizer).__name__} calls {read[group]} and has {has:.4g} there: "
                f"make the groups for its class, or set group[{read[group]!r}] = group.pop({key!r})"
            )
        else:
            yield (
                f"{key} of {group.shown} is {has:.4g} and was planned as {wanted:.4g} ({others}): "
                f"pass {key}= to plan.param_groups, which moves it to every group, or multiply all "
                "groups by one factor"
            )
        return


def _of_another_plan(rulebook: Rulebook, rows: Mapping[str, Row], group: Group) -> Iterator[str]:
    """The group's learning rate is the base's times what this plan multiplies it by."""
    options = {key: value for key, value in group.values.items() if key != "params"}
    family = family_of(group.values.get(PLANNED_FOR), options)
    if family is None or PLANNED_RATIO not in group.values:
        return
    has, seen = float(group.values[PLANNED_RATIO]), dict[tuple[Any, ...], float]()
    for row in (rows[name] for name in group.names if name in rows):
        try:
            own = own_factor(family, group.optimizer, options)
            wanted = seen.get(row.kind) or lr_ratio(rulebook, row, family, own)
        except (KeyError, ValueError):
            return  # said of its optimizer
        if math.isclose(has, wanted, rel_tol=1e-6):
            seen[row.kind] = wanted
            continue
        yield (
            f"another plan made {group.shown}: it multiplies the learning rate of {row.name} by "
            f"{has:.4g}, this one ({rulebook.scheme.name}) by {wanted:.4g}. Make the groups with "
            "the plan that the model is under: paramz.plan_of(model)"
        )
        return
