"""A callback of Hugging Face's Trainer that clips gradients in units of the base model."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from transformers import TrainerCallback

from paramz.apply.clipping import clip_grad_norm_
from paramz.plan.plan import Plan


class Clip(TrainerCallback):
    """``Trainer(..., callbacks=[paramz.hf.Clip(plan, 1.0)])`` with ``max_grad_norm=0``.

    Args:
        plan: the model's plan.
        max_norm: the threshold tuned at the base, as for `paramz.clip_grad_norm_`.
    """

    def __init__(self, plan: Plan, max_norm: float) -> None:
        self.plan = plan
        self.max_norm = max_norm

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
