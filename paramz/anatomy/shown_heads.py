"""Growing heads by their names, corrected by what a run showed of products of activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from paramz.anatomy.attention import KEY_INPUT, GrowingHeads, falling_scale, ignores
from paramz.anatomy.paths import unnumbered
from paramz.anatomy.probes import Probes
from paramz.anatomy.products import Product


def shown_heads(
    found: Sequence[GrowingHeads],
    products: Sequence[Product],
    model: nn.Module,
    probes: Probes,
) -> list[GrowingHeads]:
    """The heads that grow, of those that names tell and those that a run showed.

    Names may be silent on a head's size, or on there being attention at all. Where a run shows the
    products of a module and none of them grows, heads without an attribute are none, nor are those
    with one that stays (a cosine times a number); where a softmax takes one that does, in a module
    that names do not tell, it is attention. It has its factor in an attribute if one of that name
    falls as the root of the length of the sum grows. One that moves where no sum grows is held, but
    for what else multiplies the logits: the root of d in a norm of queries, gains that start at it.

    Args:
        found: as `find_growing_heads` finds them.
        products: as `paramz.anatomy.products.find_products` finds them; empty if no run shows any.
        model: the target.
        probes: base and wider model.
    """
    kept = []
    for heads in found:
        near = [product for product in products if in_one(heads.module, product.module)]
        if any(_on_average(heads, product, probes) for product in near):
            kept.append(replace(heads, average=True))
            continue
        falls = heads.attribute is not None and not heads.constant
        logits = [product for product in near if product.attention]
        stays = bool(logits) and all(product.growth <= 1 for product in near)
        if falls and stays and heads.attribute != KEY_INPUT and not heads.apart:
            beside = _beside(heads, logits, model, probes)
            kept.append(replace(heads, head=1.0, held=True, beside=beside))
            continue
        root = falls and math.isclose(heads.head, (heads.base / heads.plain) ** 2)
        if root and any(p.attention and p.settled and p.growth > 1 for p in near):
            heads = replace(heads, head=heads.base / heads.plain)  # the code has 1/d_head already
        normed = any(p.drifts and p.unit and p.factor > 1 for p in near)  # and times the root of d
        if falls or heads.apart or not near or normed or any(p.grows for p in near):
            kept.append(heads)
    known = [heads.module for heads in found]
    for product in products:
        told = any(in_one(module, product.module) for module in known)
        if product.grows and product.attention and not told:
            kept += _heads_of(product, model, probes)
            known.append(product.module)
        elif product.drifts and not any(in_one(each.module, product.module) for each in kept):
            kept += _held_of(product, model, probes)
    return kept


def _beside(
    heads: GrowingHeads, logits: Sequence[Product], model: nn.Module, probes: Probes
) -> float:
    """What multiplies logits beside the factor that a module keeps, target / base."""
    twin = probes.twin(heads.module) or ""
    b, w = (
        float(getattr(m.get_submodule(twin), str(heads.attribute)))
        for m in (probes.base, probes.wider)
    )
    first = logits[0]
    alike = all(math.isclose(p.factor, first.factor, rel_tol=1e-3) for p in logits)
    if not alike or first.factor <= 0:
        return 1.0
    power = math.log(first.factor / (w / b)) / math.log(w / b)
    nearest = round(4 * power) / 4
    power = nearest if math.isclose(power, nearest, abs_tol=1e-3) else power
    gains = first.gains if first.unit else ()
    return math.pow(heads.plain / heads.base, power) * _start_of(gains, model, probes)


def _start_of(gains: Sequence[str], model: nn.Module, probes: Probes) -> float:
    """At how many times the base's value gains start, those of equal entries; 1 if nobody knows."""
    kinds: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        kinds.setdefault(unnumbered(name), parameter)
    ratio = 1.0
    for name in gains:
        own, base = kinds.get(unnumbered(name)), probes.base.get_parameter(name)
        value, at_base = (None if x is None else _entry(x) for x in (own, base))
        if own is None or value is None:
            continue
        if base.is_meta:  # a power of its own size shows in the target
            powers = (p for p in _STARTS if math.isclose(value, own.shape[-1] ** p, rel_tol=1e-3))
            ratio *= (own.shape[-1] / base.shape[-1]) ** next(powers, 0.0)
        elif at_base is not None:
            ratio *= value / at_base
    return ratio


_STARTS = (0.25, 0.5, -0.25, -0.5)


def _entry(parameter: torch.Tensor) -> float | None:
    """The entry of a parameter whose entries are equal, above zero and known."""
    if parameter.is_meta or not parameter.numel():
        return None
    low, high = (float(x) for x in torch.aminmax(parameter.detach()))
    return low if low == high > 0 else None


def _held_of(product: Product, model: nn.Module, probes: Probes) -> list[GrowingHeads]:
    """The one attribute that is a number on logits, or what they are divided by, in all blocks."""
    base, wider = probes.modules
    found: dict[tuple[str, str], list[GrowingHeads]] = {}
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin not in base or twin not in wider:
            continue
        there = unnumbered(path) == unnumbered(product.module)
        if not there and not (product.module and _inside(path, product.module)):
            continue
        for name, value in vars(module).items():
            values: list[Any] = [value, *(vars(m[twin]).get(name) for m in (base, wider))]
            if not all(isinstance(each, float) and each > 0 for each in values):
                continue
            moves = values[2] / values[1]
            if any(math.isclose(moves, product.factor**p, rel_tol=1e-3) for p in (1, -1)):
                heads = GrowingHeads(path, name, value, values[1], held=True)
                found.setdefault((unnumbered(path), name), []).append(heads)
    return next(iter(found.values())) if len(found) == 1 else []


def _inside(path: str, owner: str) -> bool:
    return f"{unnumbered(path)}.".startswith(f"{unnumbered(owner)}.")


def _on_average(heads: GrowingHeads, product: Product, probes: Probes) -> bool:
    """Whether the factor of some heads multiplies an average."""
    twin = probes.twin(heads.module)
    if heads.attribute in (None, KEY_INPUT) or not product.fades or twin is None:
        return False
    b, w = (
        getattr(m.get_submodule(twin), str(heads.attribute)) for m in (probes.base, probes.wider)
    )
    return math.isclose(w / b, product.factor, rel_tol=1e-3)


def _heads_of(product: Product, model: nn.Module, probes: Probes) -> list[GrowingHeads]:
    """The attention of a product in all of its blocks; the first one, if no attribute is found."""
    base, wider = probes.modules
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if unnumbered(path) != unnumbered(product.module) or twin not in base or twin not in wider:
            continue
        name = falling_scale(base[twin], wider[twin], module)
        if name is None or ignores(module, name):
            continue
        plain, at_base, at_wider = (getattr(m, name) for m in (module, base[twin], wider[twin]))
        if math.isclose(at_base / at_wider, product.growth**0.5, rel_tol=1e-3):
            found.append(GrowingHeads(path, name, plain, at_base, (at_base / plain) ** 2))
    return found or [GrowingHeads(product.module, None)]


def in_one(heads: str, product: str) -> bool:
    """Whether one of two modules is the other or inside it; two towers meet in the model itself."""
    one, other = (f"{unnumbered(path)}." if path else "" for path in (heads, product))
    return other.startswith(one) or (bool(product) and one.startswith(other))
