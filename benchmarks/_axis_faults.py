"""Right plans over depth and over experts, and the faults that can be planted there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import zoo_hf
from torch import nn

import paramz
from paramz.apply.hf import scaled_config
from paramz.sweeps.spec.target import load_target

SWEEPS = Path(__file__).parents[1] / "sweeps"
DEPTHS = {"depths": (2, 4, 8, 16)}
EXPERTS = {"experts": (8, 16, 32, 64)}
DEEP = ("Llama", "GPT-2", "OPT", "ViT")


@dataclass(frozen=True)
class AxisCheck:
    """One check over depth or experts.

    Attributes:
        fault: its name; the scheme's for a right plan.
        scheme: the parametrization.
        culprit: part of the names of the modules that may rightly be named.
        causes: words of which the cause has to hold one.
        target: the tensor whose learning rate is wrong, if one is.
        rate: target / base of the axis -> the wrong factor on that learning rate.
    """

    fault: str
    scheme: str
    culprit: str = ""
    causes: tuple[str, ...] = ()
    target: str = ""
    rate: Callable[[float], float] = lambda ratio: 1.0

    def optimizer(self, base: int, size: Callable[[nn.Module], int]) -> Any:
        """AdamW under the plan, but for the target's learning rate."""

        def made(plan: paramz.Plan, model: nn.Module, lr: float) -> torch.optim.Optimizer:
            groups = plan.param_groups(model, "adamw", lr=lr, split="tensor")
            wrong = model.get_parameter(self.target)
            for group in groups:
                if any(p is wrong for p in group["params"]):
                    group["lr"] *= self.rate(size(model) / base)
            return torch.optim.AdamW(groups)

        return made if self.target else "adamw"


@dataclass(frozen=True)
class Axis:
    """An architecture over depth or experts.

    Attributes:
        name: for the table.
        task: its models.
        sizes: what `paramz.coord_check` varies.
        checks: the right plan and the faults.
        size: model -> how many blocks or experts it has.
        options: for `paramz.coord_check`.
    """

    name: str
    task: paramz.Task
    sizes: dict[str, tuple[int, ...]]
    checks: tuple[AxisCheck, ...]
    size: Callable[[nn.Module], int]
    options: dict[str, Any] = field(default_factory=dict)


def axes() -> Iterator[Axis]:
    """All architectures over depth, then over experts."""
    settings = {"batch_size": 8, "context": 16, "zero": True}
    yield Axis(
        "byte-level GPT, depth", load_target(f"{SWEEPS / 'train_lm.py'}:task")(settings, None),
        DEPTHS, deep("blocks.0.up.weight", "embed.weight"), lambda m: len(m.blocks),
    )  # fmt: skip
    for family in DEEP:
        kind, config, batch = zoo_hf.FAMILIES[family]()
        yield Axis(
            f"{family}, depth", hugging_face(kind, config, batch()), DEPTHS,
            deep(*INSIDE[family]), lambda m: m.config.num_hidden_layers,
        )  # fmt: skip
    settings = {"batch_size": 16, "context": 64, "zero": True}
    yield Axis(
        "byte-level MoE, experts", load_target(f"{SWEEPS / 'train_moe.py'}:task")(settings, None),
        EXPERTS, sparse("blocks.0.moe."), lambda m: len(m.blocks[0].moe.experts),
    )  # fmt: skip


# A hidden tensor of the first block, and the embedding.
INSIDE = {
    "Llama": ("model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"),
    "GPT-2": ("transformer.h.0.mlp.c_fc.weight", "transformer.wte.weight"),
    "OPT": ("model.decoder.layers.0.fc1.weight", "model.decoder.embed_tokens.weight"),
    "ViT": (
        "vit.layers.0.attention.v_proj.weight",
        "vit.embeddings.patch_embeddings.projection.weight",
    ),
}


def hugging_face(kind: Any, config: Any, batch: Any) -> paramz.Task:
    """A family of the zoo whose depth can be chosen."""

    def build(width: int, depth: int = 2) -> nn.Module:
        return kind(scaled_config(config, width, depth=depth))

    return paramz.Task(build, lambda step: batch)


def deep(hidden: str, embedding: str) -> tuple[AxisCheck, ...]:
    """Of a transformer over depth."""
    lr = ("learning rate",)
    near = hidden.removesuffix(".weight")
    return (
        AxisCheck("mup+completep", "mup+completep"),
        AxisCheck("no branch factor", "mup", "", ("residual branches",)),
        AxisCheck(
            "hidden lr times depth", "mup+completep", near, lr, hidden, lambda ratio: ratio
        ),
        AxisCheck(
            "hidden lr times 1/depth", "mup+completep", near, lr, hidden, lambda ratio: 1 / ratio
        ),
        AxisCheck(
            "embedding lr times depth", "mup+completep", embedding.removesuffix(".weight"), lr,
            embedding, lambda ratio: ratio,
        ),
    )  # fmt: skip


def sparse(prefix: str) -> tuple[AxisCheck, ...]:
    """Of a mixture of experts over their number."""
    lr = ("learning rate",)
    return (
        AxisCheck("mup+moe", "mup+moe"),
        AxisCheck(
            "router lr times experts", "mup+moe", f"{prefix}router", lr, f"{prefix}router.weight",
            lambda ratio: ratio,
        ),
        AxisCheck(
            "expert lr times experts", "mup+moe", f"{prefix}experts.0.down", lr,
            f"{prefix}experts.0.down.weight", lambda ratio: ratio,
        ),
        AxisCheck(
            "expert lr times 1/experts", "mup+moe", f"{prefix}experts.0.down", lr,
            f"{prefix}experts.0.down.weight", lambda ratio: 1 / ratio,
        ),
    )  # fmt: skip
