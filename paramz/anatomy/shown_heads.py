"""Growing heads by their names, corrected by what a run showed of products of activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

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
    falls as the root of the length of the sum grows. One that falls where no sum grows is held.

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
        stays = any(product.attention for product in near) and all(p.growth <= 1 for p in near)
        if falls and stays and heads.attribute != KEY_INPUT and not heads.apart:
            kept.append(replace(heads, head=1.0, held=True))
            continue
        root = falls and math.isclose(heads.head, (heads.base / heads.plain) ** 2)
        if root and any(p.attention and p.settled and p.growth > 1 for p in near):
            heads = replace(heads, head=heads.base / heads.plain)  # the code has 1/d_head already
        if falls or heads.apart or not near or any(product.grows for product in near):
            kept.append(heads)
    known = [heads.module for heads in found]
    for product in products:
        told = any(in_one(module, product.module) for module in known)
        if product.grows and product.attention and not told:
            kept += _heads_of(product, model, probes)
            known.append(product.module)
    return kept


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
