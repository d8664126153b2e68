"""Does a model have the factors of a plan that its forward pass is to apply?

They are attributes of modules and hooks on them, which no state_dict holds. A plain model of the
same shapes has none, and neither has a module that replaced another one after planning: all names
match, and the rates and initial values are those of another function.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paramz.anatomy.attention import KEY_INPUT
from paramz.anatomy.paths import join, split
from paramz.anatomy.tensors import listed
from paramz.plan.hooked import hooked_factors
from paramz.plan.matching import clean_name
from paramz.plan.row import ModuleScale

# Numbers in half precision are this much off; ratios of sizes are not.
_ROUNDING = 1e-2
# Wrappers' names come off those of parameters, so a module is looked for by the name of one.
_ANY = "any"
# Where a model keeps its plan.
PLAN_MARK = "_paramz_plan"
# A plan's attention, multipliers and branches.
Changes = tuple[Sequence[ModuleScale], Mapping[str, float], Mapping[str, float]]


def set_factor(module: nn.Module, attribute: str) -> Any:
    """The factor that a module keeps in an attribute: of Gemma's embedding the float beside it."""
    return getattr(module, f"scalar_{attribute}", getattr(module, attribute))


def lost_factors(changes: Changes, model: nn.Module) -> str | None:
    """A sentence on the factors of a plan that a model has not; None if it has all.

    Args:
        changes: the plan's attention, multipliers and branches.
        model: the model; DDP, FSDP and compile wrappers may be around it. Modules that it has under
            none of their names, as a traced graph, are passed over.
    """
    lost = list(_lost(changes, model))
    if not lost:
        return None
    return (
        f"the plan's factors are not on this {type(model).__name__}: {listed(lost, 2)}. So it "
        "computes something else than was planned: it is a plain model of the same shapes or under "
        "another plan, or modules were replaced after planning. paramz.restore_(model, plan) sets "
        "the factors on a plain one, or anew, and leaves the weights; a model with new parts is "
        "best planned as it is in the end: paramz.parametrize_(final, ..., base=...)"
    )


def require_factors(changes: Changes, model: nn.Module) -> None:
    """Raise if a model that is under a plan has not all of its factors.

    Args:
        changes: the plan's attention, multipliers and branches.
        model: the model, as for `lost_factors`.

    Raises:
        ValueError: factors are lost.

    Warns:
        UserWarning: the model is under no plan, and this one has factors. Groups may be asked for
            without training this model.
    """
    said = lost_factors(changes, model)
    if said is None:
        return
    if any(PLAN_MARK in vars(module) for module in model.modules()):
        raise ValueError(said)
    warnings.warn(said, stacklevel=4)  # the caller of param_groups or split_groups


def _lost(changes: Changes, model: nn.Module) -> Iterator[str]:
    attention, multipliers, branches = changes
    keys = [scale for scale in attention if scale.attribute == KEY_INPUT and scale.value != 1.0]
    hooked = [(path, factor, "input") for path, factor in multipliers.items()]
    hooked += [(path, factor, "output") for path, factor in branches.items()]
    hooked += [(scale.module, scale.value, "keys") for scale in keys]
    held = [s for s in attention if s.attribute != KEY_INPUT and s.kind != "switch"]
    paths = {*(path for path, _, _ in hooked), *(scale.module for scale in held)}
    places = _places(paths, model)
    for path, factor, what in hooked:
        there = [number for module in places.get(path, ()) for number in hooked_factors(module)]
        if path in places and not any(_is(number, factor) for number in there):
            yield f"{path} has no hook that multiplies its {what} by {factor:.4g}"
    for scale in held:
        owners = [m for m in places.get(scale.module, ()) if hasattr(m, scale.attribute)]
        found = [set_factor(module, scale.attribute) for module in owners]
        if found and not any(_is(number, scale.value) for number in found):
            place = f"{scale.module}.{scale.attribute}"
            yield f"{place} is {float(found[0]):.4g}, and was planned as {scale.value:.4g}"


def _places(paths: set[str], model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of a model by the path that the plan knows them by; wrappers are there, too."""
    known, found = {join(path, _ANY) for path in paths}, dict[str, list[nn.Module]]()
    for path, module in model.named_modules(remove_duplicate=False):
        name = clean_name(join(path, _ANY), known)
        if name in known:
            found.setdefault(split(name)[0], []).append(module)
    return found


def _is(number: Any, wanted: float) -> bool:
    alone = isinstance(number, int | float) or (
        isinstance(number, torch.Tensor) and number.numel() == 1 and not number.is_meta
    )
    return not alone or math.isclose(float(number), wanted, rel_tol=_ROUNDING)
