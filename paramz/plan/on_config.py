"""A mark in the config of a Hugging Face model whose function no plain model of its class has.

Its weights have the plain model's names and shapes, so what ``model.save_pretrained`` (or a
Trainer) writes would load anywhere, and compute something else. Transformers refuses to load a
config with a ``quantization_config`` that does not say how its weights are quantised, and other
libraries refuse methods that they do not know: weights that mean something else without the factors
around them are what the field is for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn

from paramz.anatomy.hf_config import FACTORS_FIELD, OURS, is_marked
from paramz.anatomy.paths import join
from paramz.plan.plan import Plan


def mark_config_(model: nn.Module, plan: Plan | None) -> None:
    """Mark the configs of Hugging Face's models in a model under a plan, or take the mark off.

    A config is often shared with models built from it, which stay plain: the model gets a copy.

    Args:
        model: what the plan sits on: a Hugging Face model, or something with some inside.
        plan: its plan; None for a model that is plain again.
    """
    for path, holder in _saved_alone(model):
        said = None if plan is None else _refusal(plan, path)
        config = holder.config
        if is_marked(vars(config)) and said is None:
            delattr(config, FACTORS_FIELD)
        elif said is not None and vars(config).get(FACTORS_FIELD) is None:
            marked = copy.copy(config)
            setattr(marked, FACTORS_FIELD, {OURS: said})
            for module in holder.modules():
                if vars(module).get("config") is config:
                    module.config = marked


def _saved_alone(model: nn.Module, path: str = "") -> Iterator[tuple[str, Any]]:
    """The outermost modules that can save themselves beside a config, with their paths."""
    config = vars(model).get("config")
    if hasattr(type(model), "save_pretrained") and hasattr(config, "model_type"):
        yield path, model
        return
    for name, child in model.named_children():
        yield from _saved_alone(child, join(path, name))


def _refusal(plan: Plan, path: str) -> str | None:
    """What the mark says; None where a plain model has the same function."""
    changed = [s.module for s in plan.attention if s.value != s.plain and s.kind != "switch"]
    places = [*changed, *plan.multipliers, *plan.branches]
    inside = any(f"{place}.".startswith(join(path, "")) for place in places)
    if not (plan.parametrization.unit_scaled or plan.computed or inside):
        return None
    return (
        f"saved under {plan.parametrization.name}, whose factors no config holds: a plain model "
        "with these weights computes something else. Save with paramz.hf.save_pretrained, or "
        "build the model, put it under the plan as in training and load_state_dict the weights"
    )
