"""Hugging Face: checkpoints with their plan, and what the Trainer needs.

This module is `paramz.hf`. Its functions on configs come from `paramz.anatomy.hf_config`. Only
`Clip` imports transformers.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from paramz.anatomy.hf_config import config_factory as config_factory
from paramz.anatomy.hf_config import scaled_config as scaled_config
from paramz.apply.adopt import restore_
from paramz.apply.checkpoints import PLAN_FILE
from paramz.plan.on_model import plan_of
from paramz.plan.plan import Plan

if TYPE_CHECKING:
    from paramz.apply.trainer import Clip as Clip


def __getattr__(name: str) -> Any:
    if name == "Clip":  # imports transformers
        from paramz.apply.trainer import Clip

        return Clip
    raise AttributeError(f"module 'paramz.hf' has no attribute {name!r}")


def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """``model.save_pretrained`` with the plan beside the weights, and its name in the config.

    Args:
        model: a Hugging Face model under a plan.
        folder: where to.
        **options: for ``model.save_pretrained``.

    Raises:
        ValueError: the model is under no plan.
    """
    plan = plan_of(model)
    if plan is None:
        raise ValueError("this model is under no plan: model.save_pretrained is all it needs")
    model.config.paramz = f"{plan.parametrization.name}, plan in {PLAN_FILE}"
    model.save_pretrained(folder, **options)
    plan.save(Path(folder) / PLAN_FILE)


def from_pretrained(kind: Any, folder: str | os.PathLike[str], **options: Any) -> nn.Module:
    """``kind.from_pretrained`` with the plan that `save_pretrained` left beside the weights.

    Args:
        kind: the model's class, or an Auto class.
        folder: from where.
        **options: for ``kind.from_pretrained``.

    Raises:
        ValueError: there is no plan in the folder.
    """
    file = Path(folder) / PLAN_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no {PLAN_FILE}: it was not saved by paramz.hf")
    model: nn.Module = kind.from_pretrained(folder, **options)
    restore_(model, Plan.load(file))
    return model


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
