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
    """A module whose own factor on an embedding moves with width.

    Attributes:
        module: its path in the model.
        plain: the factor in the model, as built.
        base: the factor in the base.
        attribute: where the module keeps it.
    """

    module: str
    plain: float
    base: float
    attribute: str = names.EMBED_SCALE


def find_embedding_scales(model: nn.Module, probes: Probes) -> list[EmbeddingScale]:
    """Modules that keep a factor on their embedding which differs between the probes.

    That is an ``embed_scale`` wherever it grows, and on a table or a module of nothing but tables
    any float that is called a scale, a factor or the like.
    """
    base, wider = (dict(m.named_modules()) for m in (probes.base, probes.wider))
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin not in base or twin not in wider:
            continue
        for attribute in _attributes(base[twin]):
            b, w, target = (_value(m, attribute) for m in (base[twin], wider[twin], module))
            if b is None or w is None or target is None or w == b or min(b, w, target) <= 0:
                continue
            if attribute != names.EMBED_SCALE or w > b:
                found.append(EmbeddingScale(path, target, b, attribute))
    return found


def table_of(module: nn.Module) -> nn.Embedding | None:
    """The table that a module's own factor multiplies: itself, or the only one that it owns."""
    if isinstance(module, nn.Embedding):
        return module
    known = module._modules.get(names.EMBEDDING)
    if isinstance(known, nn.Embedding):
        return known
    tables = [child for child in module._modules.values() if isinstance(child, nn.Embedding)]
    return tables[0] if len(tables) == 1 else None


def _attributes(module: nn.Module) -> list[str]:
    if hasattr(module, names.EMBED_SCALE):
        return [names.EMBED_SCALE]
    if not _only_tables(module):
        return []
    return [name for name in vars(module) if names.EMBED_FACTORS.search(name)]


def _only_tables(module: nn.Module) -> bool:
    """Whether all matrices of a module are those of embeddings that it owns itself."""
    tables = [m for m in (module, *module._modules.values()) if isinstance(m, nn.Embedding)]
    owned = {id(table.weight) for table in tables}
    matrices = [parameter for parameter in module.parameters() if parameter.ndim >= 2]
    return bool(tables) and all(id(parameter) in owned for parameter in matrices)


def _value(module: Any, attribute: str) -> float | None:
    # A buffer has no value on meta; the float beside it does.
    for name in (f"scalar_{attribute}", attribute):
        value = getattr(module, name, None)
        if isinstance(value, float | int) and not isinstance(value, bool):
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
