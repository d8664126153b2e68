"""Attention modules whose heads grow with width, and where they keep the factor on their logits.

The usual factor is 1/sqrt(d_head). muP asks for 1/d_head: queries and keys become correlated during
training, so their product grows like d_head and not like sqrt(d_head) (Yang et al. 2022, TP-V,
section 5 and appendix B.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from paramz.anatomy import names
from paramz.anatomy.probes import Probes

# Stands for an attribute where there is none to set: nn.MultiheadAttention computes 1/sqrt(d_head)
# itself, so the keys' input is multiplied instead. A bias of the keys is not, and need not be: it
# moves all logits of a query alike, which softmax does not see.
KEY_INPUT = "key input"


@dataclass(frozen=True, slots=True)
class GrowingHeads:
    """One attention module whose heads grow between the probes.

    Attributes:
        module: its path in the model.
        attribute: where it keeps the factor on its logits, or `KEY_INPUT`; None where the factor
            is out of reach, in its code.
        plain: the factor in the model, as built.
        base: the factor in the base.
        head: size of a head, target / base.
        constant: the model's own factor does not move with the size of a head (T5, whose init has
            the 1/sqrt(d_head) instead).
    """

    module: str
    attribute: str | None
    plain: float = 1.0
    base: float = 1.0
    head: float = 1.0
    constant: bool = False


def logit_scales(module: nn.Module) -> tuple[str, ...]:
    """The attributes in which a module may keep the factor on its logits.

    A class may name its own: ``LOGIT_SCALE = "temperature"``. Otherwise the names that libraries
    use are tried.

    >>> logit_scales(nn.Module())
    ('scaling', 'scale', 'softmax_scale', 'attn_scale', 'attention_scale')
    """
    own = getattr(type(module), "LOGIT_SCALE", None)
    return (own,) if isinstance(own, str) else names.LOGIT_SCALES


def find_growing_heads(model: nn.Module, probes: Probes) -> list[GrowingHeads]:
    """Attention modules whose head size grows between the probes.

    An attribute counts when its value falls between the probes, as 1/sqrt(d_head) does, or when it
    stays although the module says that the size of a head grows.
    """
    base, wider = (dict(m.named_modules()) for m in (probes.base, probes.wider))
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin in base and twin in wider:
            heads = _growing(path, module, base[twin], wider[twin])
            if heads is not None:
                found.append(heads)
    return found


def _growing(path: str, module: Any, base: Any, wider: Any) -> GrowingHeads | None:
    if isinstance(module, nn.MultiheadAttention):
        if base.head_dim == wider.head_dim:
            return None
        return GrowingHeads(path, KEY_INPUT, head=module.head_dim / base.head_dim)
    attribute = _falling_scale(base, wider, module)
    if attribute is not None:
        plain, at_base = getattr(module, attribute), getattr(base, attribute)
        return GrowingHeads(path, attribute, plain, at_base, (at_base / plain) ** 2)
    constant = _constant_scale(base, wider, module)
    if constant is not None:
        name, value, head = constant
        return GrowingHeads(path, name, value, value, head, constant=True)
    return GrowingHeads(path, None) if _hidden_attention(base, wider) else None


def _falling_scale(base: Any, wider: Any, module: Any) -> str | None:
    for name in logit_scales(module):
        b, w, t = (vars(m).get(name) for m in (base, wider, module))
        if isinstance(b, float) and isinstance(w, float) and isinstance(t, float) and 0 < w < b:
            return name
    return None


def _constant_scale(base: Any, wider: Any, module: Any) -> tuple[str, float, float] | None:
    """Attribute, value and ratio of head sizes where the scale stays though heads grow."""
    for size in names.HEAD_SIZES:
        b, w, t = (vars(m).get(size) for m in (base, wider, module))
        if isinstance(b, int) and isinstance(w, int) and isinstance(t, int) and b < w:
            for name in logit_scales(module):
                values = [vars(m).get(name) for m in (base, wider, module)]
                if isinstance(values[0], float) and values.count(values[0]) == 3:
                    return name, values[0], t / b
    return None


def _hidden_attention(base: nn.Module, wider: nn.Module) -> bool:
    """Whether a module looks like attention that keeps its number of heads while it grows."""
    if "att" not in type(base).__name__.lower():
        return False
    counts = [
        (getattr(base, n), getattr(wider, n, None)) for n in names.HEAD_COUNTS if hasattr(base, n)
    ]
    shapes = [[tuple(p.shape) for p in m.parameters()] for m in (base, wider)]
    return any(b == w and isinstance(b, int) for b, w in counts) and shapes[0] != shapes[1]


def nested_encoders(model: nn.Module) -> tuple[str, ...]:
    """Paths of torch's encoders that hand nested tensors to their layers in evaluation.

    Attention takes nested tensors on its fast path only, and a hook in a layer turns that off.

    >>> layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    >>> nested_encoders(nn.Sequential(nn.TransformerEncoder(layer, 1)))
    ('0',)
    """
    return tuple(
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.TransformerEncoder)
        and getattr(module, names.NESTED_TENSORS, False)
    )
