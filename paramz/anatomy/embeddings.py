"""Factors that a model's own code puts on its embeddings or its tied readout.

Gemma multiplies embeddings by sqrt(d), T5 divides what goes into its tied readout by sqrt(d). muP
has constants there: with the first the embedding would drown the residual stream at large width
(its coordinate check grows like width^+0.50), with the second the readout would not learn
(width^-0.72). So the first is held at the base's value, and the second is taken out of the tied
readout's multiplier.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from paramz.anatomy.attention import AttentionScale
from paramz.anatomy.probes import Probes

# Where transformers keeps the factor: Gemma and its heirs on the embedding, as a buffer; BART,
# Pegasus, Marian and their heirs as a float, on the embedding or on the encoder and decoder.
EMBED_SCALE = "embed_scale"


def find_embed_scales(model: nn.Module, probes: Probes) -> tuple[AttentionScale, ...]:
    """Modules whose ``embed_scale`` grows between the probes, with the base's value for it."""
    base, wider = (dict(m.named_modules()) for m in (probes.base, probes.wider))
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin not in base or twin not in wider:
            continue
        b, w, target = (_own_scale(m) for m in (base[twin], wider[twin], module))
        if b is not None and w is not None and target is not None and w > b:
            found.append(AttentionScale(path, EMBED_SCALE, target, b))
    return tuple(found)


def _own_scale(module: Any) -> float | None:
    # The buffer has no value on meta; its twin is a plain float.
    for name in ("scalar_embed_scale", EMBED_SCALE):
        value = getattr(module, name, None)
        if isinstance(value, float | int):
            return float(value)
    return None


def scales_tied_readout(model: nn.Module) -> bool:
    """Whether the code multiplies what goes into its tied readout by d_model^-1/2, as T5's does."""
    told = getattr(getattr(model, "config", None), "scale_decoder_outputs", None)
    return type(model).__name__ in _SCALED_WHEN_TIED if told is None else told is True


# Heirs of T5 that ask their config whether they are tied instead.
_SCALED_WHEN_TIED = (
    "UMT5ForConditionalGeneration",
    "SwitchTransformersForConditionalGeneration",
    "UdopForConditionalGeneration",
)
