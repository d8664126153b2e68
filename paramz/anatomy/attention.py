"""Attention logits: 1/d_head instead of 1/sqrt(d_head), where the size of a head grows.

Queries and keys become correlated during training, so their product grows like d_head and not like
sqrt(d_head) (Yang et al. 2022, TP-V, section 5 and appendix B.1).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from paramz.anatomy.probes import Probes
from paramz.theory.rules import Power

# Where libraries keep the factor on the logits: transformers, timm, and plain GPTs.
ATTRIBUTES = ("scaling", "scale", "softmax_scale", "attn_scale", "attention_scale")
_HEAD_COUNTS = ("num_heads", "n_head", "n_heads", "nhead", "num_attention_heads", "heads")

_HEAD_SIZES = ("key_value_proj_dim",)

KEY_INPUT = "key input"
USUAL = Power(head=Fraction(-1, 2))


@dataclass(frozen=True, slots=True)
class AttentionScale:
    """One attention module whose logits are rescaled, or an embedding with a factor of its own.

    Attributes:
        module: its path in the model.
        attribute: the float attribute that is set (``"embed_scale"`` is an embedding's), or
            ``"key input"`` for nn.MultiheadAttention, whose scale cannot be set: there the keys'
            input is multiplied (a bias of the keys moves all logits of a query alike, so softmax
            does not see that it is left alone).
        plain: the value in the unparametrized model.
        value: the value under the parametrization.
    """

    module: str
    attribute: str
    plain: float
    value: float


def find_attention(model: nn.Module, probes: Probes, power: Power) -> tuple[AttentionScale, ...]:
    """Attention modules whose head size grows between the probes, with their new factor.

    An attribute counts when its value falls between the probes, as 1/sqrt(d_head) does, or when it
    stays although the module says that the size of a head grows (T5). A module
    that looks like attention, keeps its number of heads and shows no such attribute is warned
    about: its scale is out of reach inside its code.
    """
    base, wider = (dict(m.named_modules()) for m in (probes.base, probes.wider))
    found, unreachable = [], []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin not in base or twin not in wider:
            continue
        b, w = base[twin], wider[twin]
        if isinstance(module, nn.MultiheadAttention):
            if b.head_dim != w.head_dim:
                ratios = {"head": module.head_dim / b.head_dim}
                found.append(AttentionScale(path, KEY_INPUT, 1.0, (power / USUAL)(ratios)))
            continue
        attribute = _scale_attribute(b, w, module)
        constant = None if attribute or power == USUAL else _constant_scale(b, w, module)
        if constant is not None:
            name, value, head = constant
            found.append(AttentionScale(path, name, value, value * power({"head": head})))
        elif attribute is not None:
            b_value, plain_value = getattr(b, attribute), getattr(module, attribute)
            head = (b_value / plain_value) ** 2
            found.append(
                AttentionScale(path, attribute, plain_value, b_value * power({"head": head}))
            )
        elif _hidden_attention(b, w):
            unreachable.append(path)
    if unreachable and power != USUAL:
        warnings.warn(
            f"{', '.join(unreachable[:4])}: the size of a head grows with width, but there is no "
            f"attribute ({', '.join(ATTRIBUTES)}) through which to set 1/d_head, so the logits "
            "keep the scale that is in the code (1/sqrt(d_head), if it calls "
            "scaled_dot_product_attention plainly). Keep the scale in self.scale and pass it on, "
            "or let the number of heads grow instead.",
            stacklevel=4,
        )
    return tuple(found)


def _scale_attribute(base: Any, wider: Any, module: Any) -> str | None:
    for name in ATTRIBUTES:
        b, w, t = (vars(m).get(name) for m in (base, wider, module))
        if isinstance(b, float) and isinstance(w, float) and isinstance(t, float) and 0 < w < b:
            return name
    return None


def _constant_scale(base: Any, wider: Any, module: Any) -> tuple[str, float, float] | None:
    """Attribute, value and ratio of head sizes where the scale stays though heads grow.

    T5's scale is 1, with 1/sqrt(d_head) in the init of its queries, which the plan gives the init
    of other hidden matrices: then all of 1/d_head is due.
    """
    for size in _HEAD_SIZES:
        b, w, t = (vars(m).get(size) for m in (base, wider, module))
        if isinstance(b, int) and isinstance(w, int) and isinstance(t, int) and b < w:
            for name in ATTRIBUTES:
                values = [vars(m).get(name) for m in (base, wider, module)]
                if isinstance(values[0], float) and values.count(values[0]) == 3:
                    return name, values[0], t / b
    return None


def _hidden_attention(base: nn.Module, wider: nn.Module) -> bool:
    if "att" not in type(base).__name__.lower():
        return False
    heads = [(getattr(base, n), getattr(wider, n, None)) for n in _HEAD_COUNTS if hasattr(base, n)]
    shapes = [[tuple(p.shape) for p in m.parameters()] for m in (base, wider)]
    return any(b == w and isinstance(b, int) for b, w in heads) and shapes[0] != shapes[1]


def set_scale(model: nn.Module, scale: AttentionScale, value: float) -> None:
    """Set the factor of one module (attributes only)."""
    module = model.get_submodule(scale.module)
    current = getattr(module, f"scalar_{scale.attribute}", getattr(module, scale.attribute))
    if not math.isclose(current, scale.plain) and not math.isclose(current, scale.value):
        raise ValueError(
            f"{scale.module}.{scale.attribute} is {current}, where the plan expects {scale.plain}: "
            "the model was changed since it was planned"
        )
    if isinstance(buffer := getattr(module, scale.attribute), torch.Tensor):
        buffer.fill_(value)  # Gemma's embedding has both: this is read, the float is kept beside it
        setattr(module, f"scalar_{scale.attribute}", value)
    else:
        setattr(module, scale.attribute, value)
