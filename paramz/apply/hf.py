"""Hugging Face: checkpoints with their plan, and what the Trainer needs.

This module is `paramz.hf`. Its functions on configs come from `paramz.anatomy.hf_config`. Only
`Clip` imports transformers.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from paramz.anatomy.hf_config import FACTORS_FIELD, is_marked
from paramz.anatomy.hf_config import config_factory as config_factory
from paramz.anatomy.hf_config import scaled_config as scaled_config
from paramz.apply.adopt import restore_
from paramz.apply.checkpoints import CHANGED_FILE, FOLDED, PLAN_FILE, UNFOLDED
from paramz.apply.parametrize import fold_
from paramz.apply.planners import planner_of
from paramz.plan.on_model import plan_of, require_plan
from paramz.plan.plan import Plan

if TYPE_CHECKING:
    from paramz.apply.trainer import Clip as Clip


def __getattr__(name: str) -> Any:
    if name == "Clip":  # imports transformers
        from paramz.apply.trainer import Clip

        return Clip
    raise AttributeError(f"module 'paramz.hf' has no attribute {name!r}")


def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """Save so that plain transformers load the same function, and `from_pretrained` the plan.

    The weights in the folder are folded (`paramz.fold_`, on a copy), so plain ``from_pretrained``
    gives the same logits; the tensors that folding changed are beside them as they were, so that
    training goes on bit for bit. Where no plain model has the function, the weights go into a
    subfolder, and plain ``from_pretrained`` finds none.

    What ``model.save_pretrained`` itself writes, as a Trainer does, is refused by plain
    ``from_pretrained`` where the model has factors that no config holds (`paramz.plan.on_config`).

    Args:
        model: a Hugging Face model under a plan.
        folder: where to.
        **options: for ``model.save_pretrained``.

    Raises:
        ValueError: the model is under no plan; or no plain model has its function and the folder
            holds another model.
    """
    plan = plan_of(model)
    if plan is None:
        raise ValueError("this model is under no plan: model.save_pretrained is all it needs")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    saved, folded = None if "state_dict" in options else _folded(model), FOLDED
    if saved is None:
        saved, folded = model, ""
        if (place / "config.json").exists():
            raise ValueError(
                f"{place} holds another model, which plain transformers would load instead of this "
                "one, whose function no plain model has: save into an empty folder"
            )
        warnings.warn(
            f"no plain {type(model).__name__} is this model (paramz.fold_ says why), so the "
            f"weights are in {place / UNFOLDED}, where only paramz.hf.from_pretrained looks",
            stacklevel=2,
        )
    before = getattr(saved.config, "paramz", None)
    saved.config.paramz = f"{plan.parametrization.name}, plan in {PLAN_FILE}{folded}"
    saved.save_pretrained(place if folded else place / UNFOLDED, **options)
    if not folded:
        saved.config.paramz = before
    _save_changed(model, saved, place)
    plan.save(place / PLAN_FILE)


def from_pretrained(kind: Any, folder: str | os.PathLike[str], **options: Any) -> Any:
    """``kind.from_pretrained`` with the plan that `save_pretrained` left beside the weights.

    Args:
        kind: the model's class, or an Auto class.
        folder: from where.
        **options: for ``kind.from_pretrained``.

    Returns:
        the model; with ``output_loading_info=True`` a pair of it and what transformers says of the
        loading.

    Raises:
        ValueError: there is no plan in the folder.
    """
    place = Path(folder)
    file = place / PLAN_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no {PLAN_FILE}: it was not saved by paramz.hf")
    inside = (place / UNFOLDED).is_dir() and not (place / "config.json").exists()
    where = place / UNFOLDED if inside else place
    if "config" not in options and (unmarked := _without_mark(kind, where)) is not None:
        options["config"] = unmarked
    loaded = kind.from_pretrained(where, **options)
    model: nn.Module = loaded[0] if isinstance(loaded, tuple) else loaded
    if not inside and (place / CHANGED_FILE).is_file():
        from safetensors.torch import load_file  # transformers brings it

        changed = load_file(place / CHANGED_FILE)
        with torch.no_grad():
            for name, value in changed.items():
                model.get_parameter(name).copy_(value)
    config: Any = model.config
    plan = Plan.load(file)
    note = getattr(config, "paramz", None) or f"{plan.parametrization.name}, plan in {PLAN_FILE}"
    config.paramz = note.removesuffix(FOLDED)
    restore_(model, plan)
    return loaded


def _without_mark(kind: Any, folder: Path) -> Any:
    """The config in a folder, if it refuses to be a plain model's; it is one until `restore_`."""
    if not is_marked(json.loads((folder / "config.json").read_text())):
        return None
    from transformers import AutoConfig

    config = (getattr(kind, "config_class", None) or AutoConfig).from_pretrained(folder)
    delattr(config, FACTORS_FIELD)
    return config


def _folded(model: Any) -> Any:
    """A plain copy with the same function; None if there is none, or no way back from it."""
    plan = require_plan(model)
    if plan.computed or planner_of(plan.parametrization).replaces_layers:
        return None
    copied = copy.deepcopy(model)
    try:
        fold_(copied)
    except ValueError:
        return None
    return copied


def _save_changed(model: nn.Module, saved: nn.Module, place: Path) -> None:
    """Write the tensors that folding changed, as they are under the plan."""
    from safetensors.torch import save_file  # transformers brings it

    after = dict(saved.named_parameters())
    changed = {
        name: value.detach().cpu().contiguous()
        for name, value in model.named_parameters()
        if name in after and not torch.equal(value, after[name])
    }
    (place / CHANGED_FILE).unlink(missing_ok=True)
    if changed:
        save_file(changed, place / CHANGED_FILE)


# Schedules of transformers that end at an absolute learning rate.
_ABSOLUTE = (
    "polynomial",
    "cosine_with_min_lr",
    "reduce_lr_on_plateau",
    "cosine_warmup_with_min_lr",
)


def check_arguments(arguments: Any) -> None:
    """Warn of `TrainingArguments` whose meaning moves with width.

    Args:
        arguments: ``transformers.TrainingArguments``: max_grad_norm and lr_scheduler_type are read.
    """
    if (arguments.max_grad_norm or 0) > 0:
        warnings.warn(
            f"max_grad_norm={arguments.max_grad_norm} clips by the plain global norm, which the "
            "readout dominates and which grows with width. Set max_grad_norm=0 and pass "
            "callbacks=[paramz.hf.Clip(plan, max_norm)].",
            stacklevel=2,
        )
    kind = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    if kind in _ABSOLUTE:
        warnings.warn(
            f"lr_scheduler_type={kind!r} ends at an absolute learning rate, or at one relative to "
            "optimizer.defaults['lr'], which is not the plan's. Use a schedule that multiplies, "
            "such as 'cosine' or 'linear', or check it with paramz.check_schedule.",
            stacklevel=2,
        )
