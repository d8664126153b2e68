"""Find the plan that a checkpoint was trained under, and refuse to load it without.

A plain model loads the state_dict of a model under a plan with all keys matching, and then computes
other logits if the plan has attention scales or hooks. So the plan is saved beside the weights,
and `check_checkpoint` looks for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from paramz.plan.on_model import plan_of
from paramz.plan.plan import Plan

PLAN_FILE = "paramz.json"
# What paramz.hf.save_pretrained writes beside plain weights: the tensors that folding changed, as
# they are under the plan, and the end of the note in the config. Where no plain model has the
# function, weights go into a subfolder instead.
CHANGED_FILE = "under_plan.safetensors"
FOLDED = ", weights folded"
UNFOLDED = "under_plan"


def check_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Raise if a checkpoint was trained under a plan that the model is not under.

    Args:
        model: the model that the checkpoint was or will be loaded into.
        path: the checkpoint: a folder, or a file with ``paramz.json`` beside it.

    Raises:
        ValueError: there is a plan beside the checkpoint and the model has none or another one. The
            message says what would differ and what to do.
    """
    place = Path(path)
    file = (place if place.is_dir() else place.parent) / PLAN_FILE
    if not file.is_file():
        return
    saved, own = Plan.load(file), plan_of(model)
    if own is not None and _function(own) == _function(saved):
        return
    if (file.parent / CHANGED_FILE).is_file() or (file.parent / UNFOLDED).is_dir():
        raise ValueError(
            f"{place} was trained under {saved.parametrization.name} and saved by "
            f"paramz.hf.save_pretrained, and this {type(model).__name__} is not under its plan. To "
            f"train it further load it with paramz.hf.from_pretrained({type(model).__name__}, "
            f"{str(file.parent)!r}); to use it, plain weights are enough if they are in this folder"
        )
    have = "under no plan" if own is None else f"under another plan ({own.parametrization.name})"
    raise ValueError(
        f"{place} was trained under {saved.parametrization.name} ({file}), and this "
        f"{type(model).__name__} is {have}. All names match, but {_what_differs(saved)}. "
        f"To go on with it: paramz.restore_(model, paramz.Plan.load({str(file)!r})) on the plain "
        "model. To serve it as a plain model: do that, load, call paramz.fold_(model) and save "
        "again."
    )


def _function(plan: Plan) -> tuple[Any, ...]:
    """What of a plan the forward pass and the groups depend on: not what was measured."""
    rows = [(row.name, row.shape, row.role, dict(row.ratios)) for row in plan.rows]
    return (
        plan.parametrization, rows, plan.attention, dict(plan.multipliers), dict(plan.branches),
        plan.folded,
    )  # fmt: skip


def _what_differs(plan: Plan) -> str:
    changed = [s for s in plan.attention if s.value != s.plain and s.kind != "switch"]
    parts = []
    if changed:
        parts.append(
            f"{len(changed)} factors in the forward pass are other ones (such as "
            f"{changed[0].module}: {changed[0].attribute} {changed[0].value:.4g} for "
            f"{changed[0].plain:.4g})"
        )
    hooks = {**plan.multipliers, **plan.branches}
    if hooks:
        path, factor = next(iter(hooks.items()))
        parts.append(f"{path} is multiplied by {factor:.4g} in a hook")
    if parts:
        return f"the plain model has another function: {' and '.join(parts)}"
    return "training it further takes the plan's learning rates (its function is the plain one)"
