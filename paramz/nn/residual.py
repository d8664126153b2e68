"""u-muP's tau rule: how much each residual branch contributes at any depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alphas:
    """u-muP's hyperparameters beside the learning rate (Blake et al. 2024, table 3), 1 by default.

    Attributes:
        ffn_act: multiplier in front of the feed-forward activation.
        attn_softmax: multiplier of the attention logits (which are q k / d_head).
        res: total contribution of all branches, relative to the embedding.
        res_attn_ratio: contribution of attention, relative to feed-forward.
        loss_softmax: multiplier of the logits in the loss.
    """

    ffn_act: float = 1.0
    attn_softmax: float = 1.0
    res: float = 1.0
    res_attn_ratio: float = 1.0
    loss_softmax: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"alpha {name}={value!r} must be a positive number")


def taus(attention: Sequence[bool], alphas: Alphas | None = None) -> list[float]:
    """The ratio branch / skip of every residual branch, in order.

    All attention branches contribute alike, and so do all others; their variances sum to
    alpha_attn^2 and alpha_ffn^2 of the embedding's, with alpha_attn = res_attn_ratio * alpha_ffn
    and mean square res^2 (Blake et al. 2024, appendix G). If a model has branches of one kind only,
    they contribute res.

    Args:
        attention: for each branch whether it is attention.
        alphas: res and res_attn_ratio are used.

    >>> [round(t, 4) for t in taus([True, False] * 4)][:4]
    [0.5, 0.4472, 0.4082, 0.378]
    """
    a = alphas or Alphas()
    count = {kind: list(attention).count(kind) for kind in (True, False)}
    both = count[True] > 0 and count[False] > 0
    ffn = a.res * math.sqrt(2 / (1 + a.res_attn_ratio**2)) if both else a.res
    size = {True: a.res_attn_ratio * ffn if both else a.res, False: ffn}
    found, before = [], 1.0
    for kind in attention:
        own = size[kind] ** 2 / count[kind]
        found.append(math.sqrt(own / before))
        before += own
    return found
