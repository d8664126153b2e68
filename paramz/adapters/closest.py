"""ASLoRA: factors that layers share more and more while they are trained."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import nn

from paramz.adapters.share_lora import LoRALinear
from paramz.anatomy.paths import unnumbered


def share_closest_(model: nn.Module) -> dict[str, str]:
    """Let the two layers of each kind whose B are most alike share one from now on, in place.

    ASLoRA (arXiv 2412.10135, of which the abstract was read) shares A and merges B this way while
    it trains. Alike is what has the largest cosine; the shared B is the mean over all layers that
    share it. Make the plan and the optimizer anew afterwards: ``paramz.remove_(model)``, then
    ``paramz.adopt_(model, "lora", base=...)``. Gradients of a shared B add up over its uses.

    Args:
        model: with `paramz.adapters.ShareLoRA` whose B are not shared.

    Returns:
        the path of a layer -> that of the layer whose B it has now. Kinds of which all layers
        share one already are left out.

    Raises:
        ValueError: the model has no such adapters.

    >>> from paramz.adapters import ShareLoRA, attach_
    >>> net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    >>> _ = attach_(net, ShareLoRA(rank=1), ".")
    >>> for layer, value in zip(net, (1.0, -1.0, 2.0)):
    ...     _ = nn.init.constant_(layer.lora_B, value)
    >>> share_closest_(net), net[0].lora_B is net[2].lora_B, float(net[2].lora_B.mean())
    ({'2': '0'}, True, 1.5)
    """
    kinds: dict[tuple[object, ...], dict[str, LoRALinear]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            # Layers that were given other adapters, or A of their own group, are of another kind.
            common = id(layer.lora_A) if layer.adapter.share in ("A", "both") else None
            key = unnumbered(path), layer.weight.shape, layer.adapter, common
            kinds.setdefault(key, {})[path] = layer
    if not kinds:
        raise ValueError("the model has no paramz.adapters.ShareLoRA, whose B could be shared")
    moved: dict[str, str] = {}
    for layers in kinds.values():
        owners: dict[int, list[str]] = {}
        for path, layer in layers.items():
            owners.setdefault(id(layer.lora_B), []).append(path)
        pairs = list(combinations(owners.values(), 2))
        if not pairs:
            continue
        one, other = max(pairs, key=lambda p: _cosine(layers[p[0][0]], layers[p[1][0]]))
        first, second = layers[one[0]].lora_B, layers[other[0]].lora_B
        with torch.no_grad():
            whole = len(one) + len(other)
            first.copy_((len(one) * first + len(other) * second) / whole)
        for path in other:
            layers[path].lora_B = first
            moved[path] = one[0]
    return moved


def _cosine(one: LoRALinear, other: LoRALinear) -> float:
    a, b = one.lora_B.detach().flatten(), other.lora_B.detach().flatten()
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))
