"""The training loop that the shipped tasks share: with warm-up and decay, and it can resume.

It trains on the GPU that the trial sees, in bfloat16 where that is safe, and else on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch

import paramz


def fit(
    task: paramz.Task,
    config: dict[str, Any],
    trial: Any,
    everything: Any = None,
    held_out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> dict[str, float]:
    """Train the task's model under the config's parametrization and return its metrics.

    Args:
        task: model, data and loss.
        config: see below.
        trial: the trial of the sweep.
        everything: a batch on which the trained model's loss is taken, for tasks whose batches
            are too noisy a measure of it.
        held_out: inputs and classes that training does not see, for the loss and the accuracy of
            the trained model on them.

    The config needs width and lr. The rest is optional, with these defaults:

    - parametrization (mup), base_width (32); base_depth and base_experts (those of the model; only
      schemes with a rule for depth or experts use them); alpha_res and the like (1; only u-muP has
      them);
    - optimizer (adamw), options ({}: further options of the optimizer), weight_decay (0),
      decay_policy (lr-constant), expert_lr (lr);
    - steps (80), warmup (an eighth of the steps), decay (True: linearly to zero after warm-up);
    - precision ("bf16" for autocast, "float32"; by default bf16 on a GPU that has it, under a
      first-order optimizer);
    - seed (0), checkpoint_every (0, never: the number of steps between checkpoints, from the last
      of which a resumed trial goes on).

    Returns:
        ``loss`` (of ``everything``, or the mean over the last tenth of the steps; nats),
        ``parameters``, and with ``held_out`` ``held_out_loss`` (nats) and ``held_out_accuracy``.
    """
    steps = config.get("steps", 80)
    torch.manual_seed(config.get("seed", 0))
    scheme = paramz.parametrization(config.get("parametrization", "mup"))
    model = task.build(config["width"])
    plan = task.parametrize_(
        model,
        scheme,
        base_width=config.get("base_width", 32),
        alphas=_alphas(config),
        base_sizes=_base_numbers(scheme, config),
    )
    model.to(device := best_device())  # drawn on the CPU, so that it starts alike everywhere
    reduced = uses_bf16(config, device)
    optimizers = paramz.make_optimizers(
        plan,
        model,
        config.get("optimizer", "adamw"),
        lr=config["lr"],
        weight_decay=config.get("weight_decay", 0.0),
        decay=config.get("decay_policy"),
        **_role_lr(config),
        **config.get("options", {}),
    )
    warmup = config.get("warmup", max(1, steps // 8))
    fall = 1.0 / steps if config.get("decay", True) else 0.0
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            o, lambda s: min(1.0, (s + 1) / warmup) * (1.0 - max(0, s - warmup) * fall)
        )
        for o in optimizers
    ]
    state = {"step": 0, "tail": []}
    parts = {"model": model, **{f"o{i}": o for i, o in enumerate([*optimizers, *schedules])}}
    saved = trial.directory / "checkpoint.pt"
    if saved.exists():
        state = _restore(saved, parts)
    every = config.get("checkpoint_every", 0)

    def loss_on(batch: Any) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            return task.loss(model, moved(batch, device))

    for step in range(state["step"], steps):
        loss = loss_on(task.batch(step))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        model.zero_grad(set_to_none=True)
        value = loss.item()
        if step >= steps - max(1, steps // 10):
            state["tail"].append(value)
        state["step"] = step + 1
        trial.log(step, loss=value)
        stopping = trial.should_stop()
        if stopping or (every and (step + 1) % every == 0):
            _save(saved, parts, state)
        if stopping and step + 1 < steps:
            return {}
    tail = state["tail"]
    if everything is None:
        final = sum(tail) / len(tail)
    else:
        with torch.no_grad():
            final = loss_on(everything).item()
    size = float(sum(p.numel() for p in model.parameters()))
    unseen = {} if held_out is None else judged(task, model.eval(), moved(held_out, device))
    return {"loss": final, "parameters": size, **unseen}


@torch.no_grad()
def judged(
    task: paramz.Task, model: torch.nn.Module, held_out: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, float]:
    """The loss on inputs and classes, and the share of them whose class is the likeliest."""
    inputs, classes = held_out
    return {
        "held_out_loss": task.loss(model, held_out).item(),
        "held_out_accuracy": (model(inputs).argmax(-1) == classes).float().mean().item(),
    }


def best_device() -> torch.device:
    """The GPU of this trial, or the CPU where it sees none (CUDA_VISIBLE_DEVICES says which)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bf16(config: dict[str, Any], device: torch.device) -> bool:
    """Whether forward passes run in bfloat16; weights and optimizers stay in float32.

    Raises:
        ValueError: the config's precision is neither bf16 nor float32.
    """
    asked = config.get("precision")
    if asked not in (None, "bf16", "float32"):
        raise ValueError(f"precision {asked!r}: write bf16 or float32")
    if asked is not None:
        return asked == "bf16"
    # Curvature is measured in forward and backward passes, and inverted: too delicate for 8 bits.
    first_order = config.get("optimizer", "adamw") not in ("kfac", "foof", "shampoo", "soap")
    return first_order and device.type == "cuda" and torch.cuda.is_bf16_supported()


def moved(batch: Any, device: torch.device) -> Any:
    """The tensors of a batch on a device, in tuples, lists and mappings, too."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, tuple | list):
        return type(batch)(moved(part, device) for part in batch)
    if isinstance(batch, dict):
        return {name: moved(part, device) for name, part in batch.items()}
    return batch


def _base_numbers(scheme: paramz.Parametrization, config: dict[str, Any]) -> dict[str, int]:
    """The depth and the number of experts of the base, where the config says them."""
    scaled = [scale for scale in ("depth", "experts") if scale in scheme.scales]
    return {scale: config[f"base_{scale}"] for scale in scaled if f"base_{scale}" in config}


def _alphas(config: dict[str, Any]) -> paramz.nn.Alphas | None:
    given = {k.removeprefix("alpha_"): v for k, v in config.items() if k.startswith("alpha_")}
    return paramz.nn.Alphas(**given) if given else None


def _role_lr(config: dict[str, Any]) -> dict[str, Any]:
    return {"role_lr": {"expert": config["expert_lr"]}} if "expert_lr" in config else {}


def _save(path: Any, parts: dict[str, Any], state: dict[str, Any]) -> None:
    whole = {name: part.state_dict() for name, part in parts.items()}
    temporary = path.with_suffix(".new")
    torch.save({"state": state, **whole}, temporary)
    temporary.replace(path)


def _restore(path: Any, parts: dict[str, Any]) -> dict[str, Any]:
    whole = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(whole[name])
    return whole["state"]
