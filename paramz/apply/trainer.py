"""A callback of Hugging Face's Trainer that clips gradients in units of the base model."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from transformers import TrainerCallback

from paramz.apply.clipping import clip_grad_norm_
from paramz.plan.plan import Plan


class Clip(TrainerCallback):
    """``Trainer(..., callbacks=[paramz.hf.Clip(plan, 1.0)])`` with ``max_grad_norm=0``.

    When training begins it looks at the optimizer and the schedule, as `paramz.Plan.check` does: a
    Trainer that is given none makes an optimizer of its own, with one learning rate for all.

    Args:
        plan: the model's plan.
        max_norm: the threshold tuned at the base, as for `paramz.clip_grad_norm_`.

    Raises:
        ValueError: when training begins: optimizer or schedule are not the plan's, or DeepSpeed
            trains, which would leave nothing to clip.
    """

    def __init__(self, plan: Plan, max_norm: float) -> None:
        self.plan = plan
        self.max_norm = max_norm

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at what is to train the model, before the first step."""
        if getattr(args, "deepspeed_plugin", None) is not None:
            raise ValueError(
                "DeepSpeed takes its steps within the backward pass and keeps the gradients, so "
                "paramz.hf.Clip would clip nothing: set gradient_clipping in DeepSpeed's config, "
                "which clips by the plain norm, and leave Clip out"
            )
        schedulers = [each for each in (kwargs.get("lr_scheduler"),) if each is not None]
        self.plan.check(kwargs["optimizer"], model=kwargs["model"], schedulers=schedulers)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clip, after gradients were accumulated and before the optimizer's step."""
        _unscale_(kwargs.get("optimizer"))
        clip_grad_norm_(self.plan, kwargs["model"], self.max_norm)


def _unscale_(optimizer: Any) -> None:
    """Take off the factor that fp16 puts on gradients, as the Trainer's own clipping does."""
    scaler = getattr(optimizer, "scaler", None)
    if scaler is not None:
        with suppress(RuntimeError):  # for a max_grad_norm of its own, the Trainer has done it
            scaler.unscale_(optimizer.optimizer)
