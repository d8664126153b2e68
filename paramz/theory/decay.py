"""What weight decay means and how it moves with scale: the policies by name, with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

DECAYS: Mapping[str, str] = MappingProxyType(
    {
        "lr-constant": "lr * weight_decay, what decay takes away in a step: Yang et al. 2022 "
        "(TP-V), appendix B.3; Dey et al. 2025 (arXiv 2505.01618)",
        "coupled": "weight_decay itself, so that decay weakens where the learning rate does: what "
        "torch's optimizers do when nobody scales it",
        "independent": "weight_decay as the part taken away in a step at the peak learning rate, "
        "whatever that is: Loshchilov and Hutter 2019; Wortsman et al. 2023 (arXiv 2309.14322)",
        "1/width": "weight_decay * width, with weight_decay as in independent: Qiu et al. 2025 "
        "(arXiv 2512.05620), for runs whose length grows with the model",
        "sqrt-width": "lr * weight_decay * width^1/2 of matrices whose inputs grow (with muP's lr "
        "of 1/width, weight_decay grows as width^1/2), and no decay of embeddings, biases and "
        "gains: Fan et al. 2025 (arXiv 2510.15262), for AdamW in models with norms",
    }
)

# Options by which libraries choose whether decay is apart from the gradient: torch,
# pytorch_optimizer, apex, DeepSpeed, ADOPT's authors (and timm), timm, optimi.
_DECOUPLED = (
    "decoupled_weight_decay", "weight_decouple", "adam_w_mode", "adamw_mode", "decoupled",
    "decouple", "decoupled_decay", "decouple_wd",
)  # fmt: skip
# Where such a name means something else, and decay is apart either way: lion-pytorch's divides it
# by the first learning rate, and pytorch_optimizer's Adan without it divides weights by 1 + lr wd.
_ANOTHER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"lion": ("decoupled_weight_decay",), "adan": ("weight_decouple",)}
)


def decoupling_options(optimizer: str) -> tuple[str, ...]:
    """The options by which libraries choose whether an optimizer's decay is apart.

    Args:
        optimizer: the name of its family.

    >>> "decoupled_weight_decay" in decoupling_options("adam")
    True
    """
    return tuple(name for name in _DECOUPLED if name not in _ANOTHER.get(optimizer, ()))


def read_decoupled(options: Mapping[str, Any], optimizer: str = "") -> bool | None:
    """Whether options say that decay is apart from the gradient; None where they say nothing.

    Args:
        options: of an optimizer.
        optimizer: the name of its family.

    >>> read_decoupled({"adam_w_mode": False}), read_decoupled({"momentum": 0.9})
    (False, None)
    """
    return next((options[n] for n in decoupling_options(optimizer) if n in options), None)
