"""Adapters of PEFT that are no plain pair of factors: what each of their tensors is over the rank.

Their rules are those of the table for adapters, as each of their tensors does what A, B or a weight
between fixed matrices does there, in sizes of its own: those are what is said here. r is the rank,
s the number in the layer's code (alpha / r where PEFT has one).

AdaLoRA  s B diag(E) A x; E starts at zero, A and B at a fixed size. E is a B behind s: the parts
         of its r steps that point where the loss wants add up. What stands before A and B is then
         s E ~ 1 / r: A is LoRA's, B is a B behind 1 / r. What a random B sends back to E and A
         falls with width as out^-1/2, as if so many layers used them.
LoHa     s (w1_a w1_b) * (w2_a w2_b), entry by entry, w2_b at zero. w2_b and w2_a are A that starts
         at zero and B; w1_b and w1_a the same without s, and w1_a behind r^-1/2, so that their
         product keeps its size.
LoKr     s w1 (x) w2 (Kronecker), w1 at zero: a B behind s, without a rank. In w2 = w2_a w2_b both
         are random and the product keeps its size: w2_a adds up r terms (as SVFT's M), and w2_b
         learns through entries of size r^-1/2, so that of its r steps the parts that point where
         the loss wants add up to r^1/2. With ``init_weights="lycoris"`` w2_b starts
         at zero: w2 is LoHa's, and w1 moves with nothing.
VB-LoRA  B A x, whose columns and rows are mixed from a bank of vectors. B A x has r random terms:
         the bank's entries have r^-1/4, which is an abc shift. The logits then are as w2_b.
OFT      W R x, R of blocks b x b. A step moves each coordinate by b entries: as SVFT's M. Over
         width its gradients fall as those of a gain of all coordinates do, whether wider layers
         have more blocks or larger ones.
BOFT     n such factors: n b entries.
MiSS     D S x: S sums in / r blocks of the inputs, so it is a B behind (in / r)^1/2 (inputs without
         a mean).

>>> import torch
>>> layer = torch.nn.Module()
>>> layer.miss_block = torch.nn.ParameterDict({"default": torch.zeros(4, 8)})
>>> layer.in_features, layer.out_features = 64, 8
>>> parts_of(layer, "one")["one.miss_block.default"].sizes
{'rank': 4.0, 'scaling': 4.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from paramz.anatomy.adapter_part import AdapterPart, factors_of, scaling_of
from paramz.anatomy.axes import Axes

_Parts = dict[str, AdapterPart]
_OUT_IN = Axes(fan_in=(1,), fan_out=(0,))
_IN_OUT = Axes(fan_in=(0,), fan_out=(1,))

# Where PEFT's layers keep these kinds, and its tensors for convolutions.
ADALORA_GAINS = "lora_E"
CONV_TENSORS = ("hada_t1", "lokr_t2")


def parts_of(module: nn.Module, path: str) -> _Parts:
    """Parameter name -> its part, for a layer with adapters of these kinds; empty for others."""
    found: _Parts = {}
    for look in (_adalora, _loha, _lokr, _vblora, _oft, _boft, _miss):
        found |= look(module, path)
    return found


def _part(
    kind: Literal["down", "up", "gain", "entry"],
    sizes: Mapping[str, float],
    axes: Axes,
    rank: int | None = None,
    **more: Any,
) -> AdapterPart:
    given = {scale: float(size) for scale, size in sizes.items()}
    return AdapterPart(kind, axes, rank, sizes=given, **more)


def _entrywise(dim: int) -> Axes:
    return Axes(fan_out=tuple(range(dim)), vector=True)


def _all(module: nn.Module, path: str, *locals_: str) -> dict[str, dict[str, str]]:
    """Adapter's name -> where its tensors are kept -> their names, of those that it has."""
    found: dict[str, dict[str, str]] = {}
    for local in locals_:
        for key, (name, _) in factors_of(module, local, path).items():
            found.setdefault(key, {})[local] = name
    return found


def _adalora(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    for key, name in _all(module, path, ADALORA_GAINS, "lora_A", "lora_B").items():
        if ADALORA_GAINS not in name:
            continue
        rank, gains = float(module.r[key]), name[ADALORA_GAINS]
        into = {"rank": rank, "uses": module.out_features**-0.5}
        sizes = {**into, "scaling": scaling_of(module, key) / rank}
        found[gains] = _part("up", sizes, _entrywise(2), 0, partner=gains)
        found[name["lora_A"]] = _part("down", into, _OUT_IN, 0, partner=gains)
        found[name["lora_B"]] = _part("up", {"rank": rank, "scaling": 1 / rank}, _OUT_IN, 1)
    return found


def _loha(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    tensors = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    for key, name in _all(module, path, *tensors).items():
        one_a, one_b, two_a, two_b = (name[local] for local in tensors)
        rank = float(module.r[key])
        found |= _product(two_a, two_b, rank, scaling_of(module, key))
        found[one_a] = _part("up", {"rank": rank, "scaling": rank**-0.5}, _OUT_IN, 1)
        found[one_b] = _part("down", {"rank": rank}, _OUT_IN, 0, partner=two_b)
    return found


def _product(up: str, down: str, rank: float, scaling: float) -> _Parts:
    """Two factors of which the first is random and the second starts at zero."""
    return {
        up: _part("up", {"rank": rank, "scaling": scaling}, _OUT_IN, 1),
        down: _part("down", {"rank": rank}, _OUT_IN, 0, zero=True, partner=up),
    }


def _lokr(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    kept = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
    for key, name in _all(module, path, *kept).items():
        rank, scaling = float(module.r[key]), scaling_of(module, key)
        first = name.get("lokr_w1") or name["lokr_w1_a"]
        second = name.get("lokr_w2") or name["lokr_w2_b"]
        if _is_zero(module, second):  # init_weights="lycoris"
            found[first] = _part("gain", {}, _OUT_IN)
            if "lokr_w2_b" in name:
                found |= _product(name["lokr_w2_a"], second, rank, scaling)
            else:
                found[second] = _part("up", {"scaling": scaling}, _OUT_IN, partner=second)
            continue
        if "lokr_w1" in name:
            found[first] = _part("up", {"scaling": scaling}, _OUT_IN, partner=first)
        else:
            sizes = {"rank": rank, "scaling": scaling}
            found[first] = _part("up", sizes, _OUT_IN, 1, zero=True)
            found[name["lokr_w1_b"]] = _part("down", {"rank": rank}, _OUT_IN, 0, partner=first)
        if "lokr_w2" in name:
            found[second] = _part("gain", {}, _OUT_IN)
        else:
            inner = name["lokr_w2_a"]
            found[inner] = _part("entry", {"entries": rank}, _OUT_IN, 1, partner=first)
            found[second] = _part("gain", {"mixed": 1 / rank}, _OUT_IN, 0)
    return found


def _is_zero(module: nn.Module, name: str) -> bool:
    *_, local, key = name.split(".")
    parameter: Any = module._modules[local]
    return not parameter[key].is_meta and not bool(parameter[key].any())


def _vblora(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    for key, (bank, _) in factors_of(module, "vblora_vector_bank", path).items():
        ranks = getattr(module, "r", None)  # the model that holds the layers has its config
        rank = float(ranks[key] if isinstance(ranks, Mapping) else module.peft_config[key].r)
        found[bank] = _part("up", {"scaling": rank**0.25}, _IN_OUT)
        for local, axis in (("vblora_logits_A", 0), ("vblora_logits_B", 1)):
            if (logits := factors_of(module, local, path).get(key)) is not None:
                found[logits[0]] = _part("gain", {"mixed": 1 / rank}, _entrywise(3), axis)
    return found


def _oft(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    for local in ("oft_R", "oft_embedding_R"):
        for key, (name, rotations) in factors_of(module, local, path).items():
            size = float(module.oft_block_size[key])
            axes = Axes(fan_out=(0,), vector=True)
            sizes = {"entries": size, "fan_out": len(rotations) * size}
            found[name] = _part("entry", sizes, axes, 1, zero=True, free=(0,))
    return found


def _boft(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    for name, rotations in factors_of(module, "boft_R", path).values():
        number, _, size, _ = rotations.shape
        axes = Axes(fan_out=(1,), vector=True)
        sizes = {"entries": number * size, "fan_out": rotations.shape[1] * size}
        found[name] = _part("entry", sizes, axes, 0, zero=True, free=(1, 2, 3))
    for name, _ in factors_of(module, "boft_s", path).values():
        found[name] = AdapterPart("gain", _entrywise(2))
    return found


def _miss(module: Any, path: str) -> _Parts:
    found: _Parts = {}
    for name, block in factors_of(module, "miss_block", path).values():
        rank = block.shape[-2]
        sizes = {"rank": rank, "scaling": (module.in_features / rank) ** 0.5}
        free = (1, 2) if block.dim() == 3 else ()  # init_weights="bat": blocks of rank x rank
        found[name] = _part("up", sizes, _IN_OUT, 0, zero=True, partner=name, free=free)
    return found
