"""Factors that a model's own code puts on its embeddings or its tied readout.

Gemma multiplies embeddings by sqrt(d), T5 divides what goes into its tied readout by sqrt(d). muP
has constants there: with the first the embedding would drown the residual stream at large width
(its coordinate check grows like width^+0.50), with the second the readout would not learn
(width^-0.72). So a plan holds the first at the base's value, and takes the second out of the tied
readout's multiplier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.probes import Probes


@dataclass(frozen=True, slots=True)
class EmbeddingScale:
    """A module whose own factor on an embedding grows with width.

    Attributes:
        module: its path in the model.
        plain: the factor in the model, as built.
        base: the factor in the base.
    """

    module: str
    plain: float
    base: float


def find_embedding_scales(model: nn.Module, probes: Probes) -> list[EmbeddingScale]:
    """Modules whose ``embed_scale`` grows between the probes."""
    base, wider = (dict(m.named_modules()) for m in (probes.base, probes.wider))
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin not in base or twin not in wider:
            continue
        b, w, target = (_own_scale(m) for m in (base[twin], wider[twin], module))
        if b is not None and w is not None and target is not None and w > b:
            found.append(EmbeddingScale(path, target, b))
    return found


def _own_scale(module: Any) -> float | None:
    # A buffer has no value on meta; the float beside it does.
    for name in (names.EMBED_SCALE_FLOAT, names.EMBED_SCALE):
        value = getattr(module, name, None)
        if isinstance(value, float | int):
            return float(value)
    return None


def scales_tied_readout(model: nn.Module) -> bool:
    """Whether the code multiplies what goes into its tied readout by d_model^-1/2, as T5's does."""
    config = getattr(model, "config", None)
    declared = getattr(config, names.SCALES_DECODER_OUTPUTS, None)
    return type(model).__name__ in names.SCALED_WHEN_TIED if declared is None else declared is True


def zero_padding_rows_(model: nn.Module) -> None:
    """Set the rows of padding to zero, as torch initialises them; their gradient is zero, too.

    >>> table = nn.Embedding.from_pretrained(torch.ones(3, 2), padding_idx=1)
    >>> zero_padding_rows_(table)
    >>> table.weight.tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                if module.padding_idx is not None:
                    module.weight[module.padding_idx].zero_()
