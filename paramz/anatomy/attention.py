"""Attention modules whose heads grow with width, and where they keep the factor on their logits.

The usual factor is 1/sqrt(d_head). muP asks for 1/d_head: queries and keys become correlated during
training, so their product grows like d_head and not like sqrt(d_head) (Yang et al. 2022, TP-V,
section 5 and appendix B.1).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.paths import join
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
        fused: it reads the attribute only where a switch for torch's fused attention is off.
        average: the factor is one on an average, not on logits, as where linear attention takes a
            softmax of its queries: an average keeps its size, and so must the factor.
        held: the factor falls with width and the size of heads does not, as that of a whole token's
            queries does: logits are to keep their size, and so must the factor.
        beside: what multiplies logits beside a held factor, target / base.
        apart: heads of the target alone have another size, which no run of the probes shows.
    """

    module: str
    attribute: str | None
    plain: float = 1.0
    base: float = 1.0
    head: float = 1.0
    constant: bool = False
    fused: bool = False
    average: bool = False
    held: bool = False
    beside: float = 1.0
    apart: bool = False


def logit_scales(module: nn.Module) -> tuple[str, ...]:
    """The attributes in which a module may keep the factor on its logits.

    A class may name its own: ``LOGIT_SCALE = "temperature"``. Otherwise the names that libraries
    use are tried.

    >>> logit_scales(nn.Module())
    ('scaling', 'scale', 'softmax_scale', 'attn_scale', 'attention_scale', 'scale_factor')
    """
    own = getattr(type(module), "LOGIT_SCALE", None)
    return (own,) if isinstance(own, str) else names.LOGIT_SCALES


def find_growing_heads(model: nn.Module, probes: Probes) -> list[GrowingHeads]:
    """Attention modules whose head size grows between the probes.

    Attention shows in a class's name, in the number or size of heads, or in a projection to
    queries. An attribute counts when its value falls between the probes as 1/sqrt(d_head) does, or
    when it stays although the module says that the size of a head grows. Where heads grow and no
    attribute counts, the module is found without one.
    """
    base, wider = probes.modules
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin in base and twin in wider:
            heads = _growing(path, module, base[twin], wider[twin])
            if heads is not None:
                found.append(heads)
    return _without_owners(found)


def _growing(path: str, module: Any, base: Any, wider: Any) -> GrowingHeads | None:
    if isinstance(module, nn.MultiheadAttention):
        if base.head_dim == wider.head_dim == module.head_dim:
            return None
        return GrowingHeads(path, KEY_INPUT, head=module.head_dim / base.head_dim)
    declares = isinstance(getattr(type(module), "LOGIT_SCALE", None), str)
    if not (declares or is_attention(base)):
        return None
    sizes = [head_size(m) for m in (base, wider, module)]
    known = all(size is not None for size in sizes)
    b, w, t = (float(size or 1) for size in sizes)
    if known and b == w != t:
        return _of_another_size(path, module, base, t / b)
    attribute = falling_scale(base, wider, module)
    if attribute is not None and ignores(module, attribute):
        return GrowingHeads(path, None, head=t / b) if b < w else None
    if attribute is not None:
        plain, at_base = getattr(module, attribute), getattr(base, attribute)
        if not known:
            return GrowingHeads(path, attribute, plain, at_base, (at_base / plain) ** 2)
        falls = at_base / getattr(wider, attribute)
        if declares or any(math.isclose(falls, (w / b) ** p, rel_tol=1e-3) for p in (0.5, 1)):
            fused = vars(module).get(names.FUSED_ATTENTION) is True
            return GrowingHeads(path, attribute, plain, at_base, t / b, fused=fused)
        one, other = _query_size(base), _query_size(wider)
        if b == w and one and other and math.isclose(falls**2, other / one, rel_tol=1e-3):
            return GrowingHeads(path, attribute, plain, at_base, held=True)
        attribute = None
    if not known or b >= w:
        return GrowingHeads(path, None) if not known and _may_grow(base, wider) else None
    for name in logit_scales(module):
        values = [vars(m).get(name) for m in (base, wider, module)]
        if isinstance(values[0], float) and values.count(values[0]) == 3:
            return GrowingHeads(path, name, values[0], values[0], t / b, constant=True)
    return GrowingHeads(path, None, head=t / b)


def _of_another_size(path: str, module: Any, base: Any, head: float) -> GrowingHeads:
    """Attention whose heads have one size in both probes and another in the target."""
    for name in logit_scales(module):
        plain, at_base = (vars(m).get(name) for m in (module, base))
        if isinstance(plain, float) and isinstance(at_base, float) and plain * at_base > 0:
            powers = (p for p in (0.0, 0.5, 1.0) if math.isclose(at_base / plain, head**p))
            if (power := next(powers, None)) is not None and not ignores(module, name):
                fused = bool(power) and vars(module).get(names.FUSED_ATTENTION) is True
                return GrowingHeads(
                    path, name, plain, at_base, head, constant=not power, fused=fused, apart=True
                )
    return GrowingHeads(path, None, head=head, apart=True)


def _without_owners(found: list[GrowingHeads]) -> list[GrowingHeads]:
    """Without modules that have no attribute where one inside has it, as lucidrains' Attend."""
    having = [heads.module for heads in found if heads.attribute is not None]
    return [
        heads
        for heads in found
        if heads.attribute is not None
        or not any(path.startswith(join(heads.module, "")) for path in having)
    ]


def is_attention(module: nn.Module) -> bool:
    """Whether a module computes attention itself: it is called so, or projects to queries.

    >>> is_attention(nn.MultiheadAttention(4, 2)), is_attention(nn.LayerNorm(4))
    (True, False)
    """
    kind = type(module).__name__
    if isinstance(module, _CONTAINERS):
        return False  # what it holds is its owner's
    if names.NORM_CLASS.search(kind) or any(n in module._parameters for n in names.DECAY_RATES):
        return False
    queries = {n for n, _ in _children(module) if names.QUERY_PROJECTION.search(n)}
    if queries and queries <= names.ONLY_Q and not _has_keys(module):
        queries = set()
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for _, m in _children(module))
    if queries and not (queries == {"in_proj"} and convolves):  # as in a gated short convolution
        return True
    if names.ATTENTION_CLASS.search(kind):
        inside = (child for child in module.modules() if child is not module)
        return not any(is_attention(child) and _has_matrices(child) for child in inside)
    return False


def _has_keys(module: nn.Module) -> bool:
    """Whether a module makes keys or is handed them, or has what only attention has."""
    own = {name for name, _ in _children(module)} | module._parameters.keys()
    handed = inspect.signature(type(module).forward).parameters
    told = {*names.LOGIT_SCALES, *names.HEAD_COUNTS, *names.HEAD_SIZES} & vars(module).keys()
    return bool(told) or any(map(names.OF_KEYS.search, (*own, *handed)))


_CONTAINERS = (nn.ModuleDict, nn.ModuleList)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a module by name, and those in a ModuleDict that it has."""
    for name, child in module._modules.items():
        if isinstance(child, nn.ModuleDict):
            yield from _children(child)
        elif child is not None:
            yield name, child


def _has_matrices(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def head_size(module: Any) -> int | None:
    """The size of a head, if a module tells it or the number of heads; None if it does not."""
    own = vars(module)
    for name in names.HEAD_SIZES:
        if isinstance(own.get(name), int):
            return int(own[name])
    count = next((own[n] for n in names.HEAD_COUNTS if isinstance(own.get(n), int)), None)
    size = _query_size(module)
    if count is None or size is None or size % count:
        return None
    return int(size // count)


def _query_size(module: nn.Module) -> int | None:
    """How large all queries of a token are: what a projection gives, a third of a fused one."""
    for name, child in _children(module):
        weight = getattr(child, "weight", None)
        if not names.QUERY_PROJECTION.search(name) or not isinstance(weight, torch.Tensor):
            continue
        if weight.ndim != 2:
            continue
        out = weight.shape[1 if type(child).__name__ == names.TRANSPOSED_LINEAR else 0]
        if "qkv" in name or name in names.FUSED_QUERIES or "key_value" in name:
            # Fewer keys and values than queries make it less than three times as large.
            return int(out) // 3 if out % 3 == 0 else None
        if "k" in name or "v" in name:
            return None
        return int(out)
    return None


def falling_scale(base: Any, wider: Any, module: Any) -> str | None:
    """The attribute with the name of a logit scale whose value falls between the probes."""
    for name in logit_scales(module):
        b, w, t = (vars(m).get(name) for m in (base, wider, module))
        if isinstance(b, float) and isinstance(w, float) and isinstance(t, float) and 0 < w < b:
            return name
    return None


def ignores(module: nn.Module, attribute: str) -> bool:
    """Whether a class calls torch's fused attention and never reads its own factor for it."""
    read: set[str] = set()
    overridden = {"__init__"}  # of a class below; one that calls super() runs the other, too
    for kind in type(module).__mro__:
        if kind is nn.Module:
            break
        for name, function in vars(kind).items():
            code = getattr(function, "__code__", None)
            if code is not None and name not in overridden:
                read.update(code.co_names)
                if "super" not in code.co_names:
                    overridden.add(name)
    return "scaled_dot_product_attention" in read and attribute not in read


def _may_grow(base: nn.Module, wider: nn.Module) -> bool:
    """Whether matrices grow in attention that tells no size of a head and no larger number."""
    for name in logit_scales(base):
        scales = [vars(m).get(name) for m in (base, wider)]
        if isinstance(scales[0], float) and scales[0] == scales[1]:
            return False  # it has a scale, which stays, as it does where the number grows
    counts = [(vars(base)[n], vars(wider).get(n)) for n in names.HEAD_COUNTS if n in vars(base)]
    shapes = [[tuple(p.shape) for p in m.parameters()] for m in (base, wider)]
    return all(b == w for b, w in counts) and shapes[0] != shapes[1]


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
