"""Factors that a model's own code puts on its embeddings or its tied readout.

Gemma multiplies embeddings by sqrt(d), T5 divides what goes into its tied readout by sqrt(d). muP
has constants there: with the first the embedding would drown the residual stream at large width
(its coordinate check grows like width^+0.50), with the second the readout would not learn
(width^-0.72). So a plan holds the first at the base's value, and takes the second out of the tied
readout's multiplier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.paths import join
from paramz.anatomy.probes import Probes


@dataclass(frozen=True, slots=True)
class EmbeddingScale:
    """A module whose own factor on an embedding moves with width.

    Attributes:
        module: its path in the model.
        plain: the factor in the model, as built.
        base: the factor in the base.
        table: the path of the layer whose output it multiplies.
        attribute: where the module keeps it.
    """

    module: str
    plain: float
    base: float
    table: str
    attribute: str = names.EMBED_SCALE


def find_embedding_scales(model: nn.Module, probes: Probes) -> list[EmbeddingScale]:
    """Modules that keep a factor on their embedding which differs between the probes.

    That is an ``embed_scale`` wherever it grows, and on a table or a module of nothing but tables
    any float that is called a scale, a factor or the like; and beside a table a buffer of one
    number that grows like the root of its width (RecurrentGemma).
    """
    base, wider = probes.modules
    found = []
    for path, module in model.named_modules():
        twin = probes.twin(path)
        if twin not in base or twin not in wider:
            continue
        for attribute in _attributes(base[twin]):
            b, w, target = (_value(m, attribute) for m in (base[twin], wider[twin], module))
            if w is None and _is_root(module, base[twin], attribute):
                w = target  # the wider probe is on meta, where a buffer has no value
            if b is None or w is None or target is None or w == b or min(b, w, target) <= 0:
                continue
            if attribute != names.EMBED_SCALE or w > b:
                table = _path_of_table(path, module)
                found.append(EmbeddingScale(path, target, b, table, attribute))
    return found


def unknown_numbers(probes: Probes) -> list[str]:
    """What to say of buffers that may be factors on embeddings and have no value on meta."""
    base, _ = probes.modules
    return [
        f"{join(path, name)}: a buffer of one number beside a table of embeddings, which has no "
        "value on the meta device. If forward code multiplies embeddings by it, plan with paramz."
        "parametrize_ a model that is not on meta: it is then held at the base's value"
        for path, module in base.items()
        if not hasattr(module, names.EMBED_SCALE) and not _only_tables(module)
        for name in _number_buffers(module)
        if module._buffers[name].is_meta  # type: ignore[union-attr]
    ]


def table_of(module: nn.Module) -> nn.Embedding | None:
    """The table that a module's own factor multiplies: itself, or the only one that it owns."""
    if isinstance(module, nn.Embedding):
        return module
    known = module._modules.get(names.EMBEDDING)
    if isinstance(known, nn.Embedding):
        return known
    tables = [child for child in module._modules.values() if isinstance(child, nn.Embedding)]
    return tables[0] if len(tables) == 1 else None


def _path_of_table(path: str, module: nn.Module) -> str:
    """The path of the table that a module's own factor multiplies, or of what is around it."""
    if isinstance(module, nn.Embedding):
        return path
    if names.EMBEDDING in module._modules:
        return join(path, names.EMBEDDING)
    tables = [n for n, child in module._modules.items() if isinstance(child, nn.Embedding)]
    return join(path, tables[0]) if len(tables) == 1 else path


def _attributes(module: nn.Module) -> list[str]:
    if hasattr(module, names.EMBED_SCALE):
        return [names.EMBED_SCALE]
    if not _only_tables(module):
        return _number_buffers(module)
    return [name for name in vars(module) if names.EMBED_FACTORS.search(name)]


def _number_buffers(module: nn.Module) -> list[str]:
    """Buffers of one number beside a table that are called a factor or the like."""
    if table_of(module) is None:
        return []
    return [
        name
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.ndim == 0 and names.EMBED_FACTORS.search(name)
    ]


def _is_root(module: nn.Module, base: nn.Module, attribute: str) -> bool:
    """Whether a number in a buffer grows like the root of the width of the module's table."""
    if attribute not in module._buffers:
        return False
    tables = [table_of(m) for m in (module, base)]
    values = [_value(m, attribute) for m in (module, base)]
    if tables[0] is None or tables[1] is None or values[0] is None or not values[1]:
        return False
    growth = float(tables[0].weight.shape[1] / tables[1].weight.shape[1]) ** 0.5
    return math.isclose(values[0] / values[1], growth, rel_tol=0.01)


def _only_tables(module: nn.Module) -> bool:
    """Whether all matrices of a module are those of embeddings that it owns itself."""
    tables = [m for m in (module, *module._modules.values()) if isinstance(m, nn.Embedding)]
    if not tables:
        return False
    owned = {id(table.weight) for table in tables}
    return all(id(p) in owned for p in module.parameters() if p.ndim >= 2)


def _value(module: Any, attribute: str) -> float | None:
    # A buffer has no value on meta; the float beside it does.
    for name in (f"scalar_{attribute}", attribute):
        value = getattr(module, name, None)
        if isinstance(value, float | int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_meta:
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
