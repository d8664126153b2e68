"""Fold multipliers and attention scales into weights, for export and serving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.attention import KEY_INPUT
from paramz.anatomy.embeddings import table_of
from paramz.anatomy.paths import join, split
from paramz.anatomy.tensors import is_trainable_kind
from paramz.apply.tied import TiedFold, tied_folds
from paramz.plan.on_model import set_scale_
from paramz.plan.plan import Plan
from paramz.plan.row import ModuleScale


def fold_weights_(model: nn.Module, plan: Plan, example: Any = None) -> None:
    """Multiply weights by their multiplier, and queries by what 1/sqrt(d_head) leaves to do.

    Args:
        model: the model, under the plan.
        plan: the plan.
        example: what to call the model with, for tied readouts, see `tied_folds`.

    Raises:
        ValueError: something cannot be folded; the weights are then as they were.
    """
    tied = tied_folds(model, plan, example)
    _refuse_what_no_weight_holds(plan, tied)
    done = [scale for fold in tied for scale in fold.scales]
    parts = _scaled_parts(model, plan, without=done)
    with torch.no_grad():
        for path, factor in plan.multipliers.items():
            if any(path in fold.paths for fold in tied):
                continue
            weight = model.get_submodule(path).weight
            assert isinstance(weight, torch.Tensor)
            weight.mul_(factor)
        for fold in tied:
            fold.apply_()
        for scale, weights in [*parts, *((scale, []) for scale in done)]:
            offset = _offset(model, scale) if weights else 0.0
            for part in weights:
                part.add_(offset).mul_(scale.value / scale.plain).sub_(offset)
            if scale.attribute != KEY_INPUT:
                set_scale_(model, scale, scale.plain)


def unfold_scales_(model: nn.Module, plan: Plan) -> None:
    """Divide weights by what the plan's attention and embedding scales will multiply."""
    with torch.no_grad():
        for scale, weights in _scaled_parts(model, plan):
            offset = _offset(model, scale)
            for part in weights:
                part.add_(offset).mul_(scale.plain / scale.value).sub_(offset)


def _offset(model: nn.Module, scale: ModuleScale) -> float:
    """What a norm of queries adds to its gain before it multiplies: 1 in Gemma, else 0."""
    module = model.get_submodule(scale.module)
    if scale.kind != "attention" or isinstance(module, nn.MultiheadAttention):
        return 0.0
    norm = next(
        (child for name, child in module.named_children() if name in names.QUERY_NORMS), None
    )
    gain = getattr(norm, "weight", None)
    if norm is None or not isinstance(gain, torch.Tensor):
        return 0.0
    kept = gain.detach().clone()
    gain.zero_()
    out = norm(torch.ones_like(kept)[None])
    gain.copy_(kept)
    return 1.0 if bool(out.any()) else 0.0


def _scaled_parts(
    model: nn.Module, plan: Plan, without: Sequence[ModuleScale] = ()
) -> list[tuple[ModuleScale, list[torch.Tensor]]]:
    scales = [s for s in plan.attention if s.value != s.plain and s not in without]
    found, seen = [], set[tuple[int, torch.Size]]()
    for scale in scales:
        parts = {(p.data_ptr(), p.shape): p for p in scaled_weights(model, plan, scale)}
        # What several modules share takes the factor once.
        found.append((scale, [part for key, part in parts.items() if key not in seen]))
        seen |= parts.keys()
    return found


def scaled_weights(model: nn.Module, plan: Plan, scale: ModuleScale) -> list[torch.Tensor]:
    """Views of the weights that a scale of the plan can be folded into.

    Raises:
        ValueError: there are none, they are quantised, or something else uses them that has not
            the same scale; the message says why.
    """
    if scale.kind == "switch":
        return []  # it changes how torch computes, not what
    if scale.kind == "embedding" or scale.attribute == names.EMBED_SCALE:
        return _embedding_parts(model, plan, scale)
    if scale.kind == "declared":
        raise ValueError(
            f"{scale.module}.{scale.attribute} was declared to be {scale.value:.4g} where plain "
            f"code would use {scale.plain:.4g}, and paramz does not know which weight it multiplies"
        )
    parts = _query_parts(model, scale)
    if not all(is_trainable_kind(part) for part in parts):
        raise ValueError(
            f"{scale.module}: its queries are quantised, and integers cannot take up a factor of "
            f"{scale.value / scale.plain:.4g}"
        )
    _require_alike(model, plan, scale, parts)
    return parts


def _require_alike(
    model: nn.Module, plan: Plan, scale: ModuleScale, parts: Sequence[torch.Tensor]
) -> None:
    """Raise if a weight is used elsewhere, too, without the same factor on what comes out."""
    ratio = scale.value / scale.plain
    same = {
        id(model.get_submodule(each.module))
        for each in plan.attention
        if each.kind == "attention" and math.isclose(each.value / each.plain, ratio)
    }
    memory = [_memory(part) for part in parts if not part.is_meta]
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue  # what it holds, others call
        for local, child in module._modules.items():
            own = [] if child is None else child._parameters.values()
            if not any(_overlaps(p, memory) for p in own if p is not None):
                continue
            alike = id(module) in same and local in _TAKE_QUERIES
            if not alike and not (isinstance(child, nn.MultiheadAttention) and id(child) in same):
                raise ValueError(
                    f"{scale.module}: the weight of its queries is that of {join(path, local)}, "
                    f"too, which does not get its factor of {ratio:.4g}. Give each a weight of its "
                    "own, or keep the plan"
                )


_TAKE_QUERIES = (*names.QUERIES, *names.FUSED_QUERIES, *names.QUERY_NORMS)


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    """Where the entries of a tensor, or of a view of one, begin and end."""
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size()


def _overlaps(tensor: torch.Tensor, memory: Sequence[tuple[int, int]]) -> bool:
    begin, end = (0, 0) if tensor.is_meta or not tensor.numel() else _memory(tensor)
    return any(begin < other_end and other < end for other, other_end in memory)


def _refuse_what_no_weight_holds(plan: Plan, tied: Sequence[TiedFold]) -> None:
    shared = {split(row.name)[0]: row for row in plan.rows if row.aliases}
    for path, factor in plan.multipliers.items():
        if path in shared and factor != 1.0 and not any(path in fold.paths for fold in tied):
            raise ValueError(
                f"what comes out of {path} is multiplied by {factor:.4g}, and its weight is shared "
                f"with {', '.join(shared[path].aliases)}, which is not: no plain tied model "
                "computes this. Untie them before planning, or keep the plan."
            )
    for path, factor in plan.branches.items():
        raise ValueError(
            f"{path} ends a residual branch and multiplies its output by {factor:.4g} in a hook, "
            "which fold_ does not put into weights. Plan with fold=True, which does where there "
            "are weights that end the branch, or keep the hook."
        )


def _embedding_parts(model: nn.Module, plan: Plan, scale: ModuleScale) -> list[torch.Tensor]:
    """The table that a module's ``embed_scale`` multiplies."""
    module = model.get_submodule(scale.module)
    table = table_of(module)
    if table is not None:
        rows = (r for r in plan.rows if model.get_parameter(r.name) is table.weight)
        if not next(rows).aliases:
            return [table.weight]
    raise ValueError(
        f"{scale.module}.{scale.attribute} is {scale.value:.4g} where plain code would use "
        f"{scale.plain:.4g}, and there is no embedding of its own to fold it into (its table is "
        "shared, or not an nn.Embedding). Untie it before planning, or keep the plan."
    )


def _query_parts(model: nn.Module, scale: ModuleScale) -> list[torch.Tensor]:
    """Views of the weights and biases that make the queries of one attention module, or keys."""
    module = model.get_submodule(scale.module)
    if isinstance(module, nn.MultiheadAttention):
        return _multihead_keys(module)
    children = dict(module.named_children())
    normed = [name for name in children if name in names.QUERY_NORMS]
    query = next((children[name] for name in names.QUERIES if name in children), None)
    if normed:
        gain = getattr(children[normed[0]], "weight", None)
        if isinstance(gain, torch.Tensor):
            return [gain]
    elif query is not None:
        return [p for p in query.parameters(recurse=False)]
    else:
        fused = next((children[name] for name in names.FUSED_QUERIES if name in children), None)
        if fused is not None and not hasattr(module, names.GROUPED_QUERIES):
            return _first_third(fused)
    raise ValueError(
        f"{scale.module}: paramz cannot find the query projection of this "
        f"{type(module).__name__} (looked for {', '.join(names.QUERIES + names.FUSED_QUERIES)} in "
        f"{', '.join(children) or 'no submodules'}), so it cannot fold its attention scale "
        f"{scale.value:.4g}; plain code would use {scale.plain:.4g}"
    )


def _multihead_keys(module: nn.MultiheadAttention) -> list[torch.Tensor]:
    """What the input of keys is multiplied by, which is what the factor multiplies: no bias."""
    size = module.embed_dim
    same = module._qkv_same_embed_dim
    return [module.in_proj_weight[size : 2 * size] if same else module.k_proj_weight]


def _first_third(fused: nn.Module) -> list[torch.Tensor]:
    """The queries of a projection to (query, key, value) in that order."""
    weight, bias = fused.weight, fused.bias
    assert isinstance(weight, torch.Tensor)
    out_axis = 1 if type(fused).__name__ == names.TRANSPOSED_LINEAR else 0
    size = weight.shape[out_axis] // 3
    parts = [weight.narrow(out_axis, 0, size)]
    if isinstance(bias, torch.Tensor):
        parts.append(bias[:size])
    return parts
