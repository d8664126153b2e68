"""Factors of a model's own code that multiply what trains beside or in adapters.

A scheme with `rank` leaves the model that adapters are on as it is, with the factors in its code:
sqrt(width) on Gemma's embeddings, 1/width on MiniCPM's logits. What an adapter adds to such a layer
goes through the factor, too, and so does a table or readout that is trained whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paramz.anatomy.adapter_part import AdapterPart
from paramz.anatomy.facts import Facts, TensorFacts
from paramz.anatomy.names import ADDED_GAIN, FUSED_QUERIES, KEYS, QUERIES, WRAPPED_IN
from paramz.plan.row import Row


@dataclass(frozen=True)
class _Factor:
    """A factor in code: the layer, target / base, and whether it multiplies the layer's output."""

    layer: str
    ratio: float
    output: bool
    readout: bool


def with_code(rows: Sequence[Row], facts: Facts) -> list[Row]:
    """The rows with the ratio ``code`` where such a factor moves.

    Args:
        rows: of the model's tensors.
        facts: of the model.
    """
    factors = _factors(facts)
    return [
        row if row.is_frozen else _coded(_hooked(row, facts), tensor, factors)
        for row, tensor in zip(rows, facts.tensors, strict=True)
    ]


def _hooked(row: Row, facts: Facts) -> Row:
    """The row with the factor of an earlier plan on what goes into its own module.

    That is a layer of which PEFT trains a copy, hook and all. What LoRA adds goes beside the hook.
    """
    path = row.name.rpartition(".")[0]
    if facts.hooked.get(path, 1.0) == 1.0 or len(row.shape) < 2:
        return row
    return replace(row, ratios={**row.ratios, "code": facts.hooked[path]})


def notes_on_code(rows: Sequence[Row]) -> list[str]:
    """What a reader of the plan should know of such factors, one sentence each.

    Args:
        rows: the plan's.
    """
    found: dict[float, list[str]] = {}
    for row in rows:
        if row.ratios.get("code", 1.0) != 1.0:
            found.setdefault(row.ratios["code"], []).append(row.name)
    return [
        f"{names[0]}: the model's code has a factor there that is {ratio:.4g} times the base's. It "
        "stays, as the model was trained with it, and the learning rate makes up for it"
        for ratio, names in found.items()
    ]


def notes_on_heads(facts: Facts) -> list[str]:
    """What to say of adapters on attention whose heads are larger than the base's.

    Under muP the factor on logits is 1/d_head; the trained model keeps its 1/d_head^1/2.

    Args:
        facts: of the model.
    """
    grown = [
        heads.module
        for heads in facts.heads
        if heads.head != 1.0 and not heads.average and _adapted(heads.module, facts)
    ]
    return [
        f"{module}: its heads are larger than the base's, and the factor on its logits stays as "
        "the model was trained with it. What adapters of queries and keys do to the logits may "
        "then grow, by up to d_head^1/2 at these learning rates: let the number of heads grow "
        "instead, or tune these adapters at this size of a head"
        for module in grown[:1]
    ]


def _adapted(path: str, facts: Facts) -> bool:
    """Whether an attention module has adapters, but for those of values and outputs alone."""
    inside = [t.name[len(path) + 1 :] for t in facts.tensors if t.name.startswith(f"{path}.")]
    layers = {t.split(".")[0] for t in inside if re.search(WRAPPED_IN, f".{t}")}
    return bool(layers & {*QUERIES, *FUSED_QUERIES, *KEYS})


def _factors(facts: Facts) -> list[_Factor]:
    held = [
        _Factor(_layer(each.table), each.plain / each.base, output=True, readout=False)
        for each in facts.embeddings
    ]
    written = [
        _Factor(
            _layer(each.module),
            each.ratio,
            output=each.place != "readout" or each.behind,
            readout=each.place == "readout",
        )
        for each in facts.written
        if each.place != "weight"
    ]
    return list({one.layer: one for one in (*held, *written)}.values())


def _layer(path: str) -> str:
    """The path of a layer without what PEFT has inside it: ``lm_head.base_layer`` is lm_head."""
    return re.split(WRAPPED_IN, path, maxsplit=1)[0]


def _coded(row: Row, tensor: TensorFacts, factors: Sequence[_Factor]) -> Row:
    names = (row.name, *row.aliases)
    for factor in factors:
        if any(name.startswith(f"{factor.layer}.") for name in names):
            if tensor.adapter is None:
                moves = _learns_there(row, factor)
            else:
                moves = _adds(row.name, tensor.adapter, factor)
            if moves:
                ratio = factor.ratio * row.ratios.get("code", 1.0)
                return replace(row, ratios={**row.ratios, "code": ratio})
    return row


def _learns_there(row: Row, factor: _Factor) -> bool:
    """Whether a tensor that is trained whole learns by what the factor multiplies.

    A table that reads out, too, has two uses, and its role says by which it learns.
    """
    if len(row.shape) < 2:
        return factor.output
    return factor.readout == (row.role == "output")


def _adds(name: str, part: AdapterPart, factor: _Factor) -> bool:
    """Whether an adapter's tensor is what the factor is to be made up for in.

    Of a pair that is B, or what starts at zero in its place. Gains of what was trained, and
    rotations of it, change it in proportion, whatever its size.
    """
    if part.kind == "gain":
        bias = "scaling" in (part.sizes or {})
        return (bias and factor.output) or ADDED_GAIN in name.split(".")
    if part.kind == "entry":
        return part.sizes is None
    return part.kind == "up" and part.partner is not None
