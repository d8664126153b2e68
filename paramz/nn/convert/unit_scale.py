"""u-muP for a model that was written without it, in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from paramz.anatomy import names
from paramz.anatomy.attention import nested_encoders
from paramz.anatomy.embeddings import zero_padding_rows_
from paramz.anatomy.paths import join
from paramz.anatomy.sound import require_model
from paramz.nn.convert.atoms import PROJECTIONS, Atom, find_atoms
from paramz.nn.convert.factors import Factors, find_factors
from paramz.nn.convert.swap import replace_layer_, unit_scaled_layer
from paramz.nn.convert.trace import layer_kind, trace
from paramz.nn.convert.unit_plan import unit_plan
from paramz.nn.convolution import conv_fans
from paramz.nn.layers.convolution import Convolution
from paramz.nn.layers.linear import Conv1D, Linear
from paramz.nn.layers.modules import LayerNorm, RMSNorm
from paramz.nn.layers.multihead import MultiheadAttention
from paramz.nn.residual import Alphas
from paramz.plan.on_model import set_scale_
from paramz.plan.plan import Plan
from paramz.plan.roles import Overrides
from paramz.plan.row import ModuleScale
from paramz.theory.tables import U_MUP


def unit_scale_(
    model: nn.Module, example: Any, *, alphas: Alphas | None = None, init: bool = True
) -> Factors:
    """Turn a model's layers into unit-scaled ones, in place; its own code stays as it is.

    One forward pass is recorded to see what the model computes. Then every linear layer, embedding
    and norm is replaced by the layer of `paramz.nn` that does the same with u-muP's factors in its
    matrix products; parameters stay the same objects under the same names. The factors of what lies
    between (activations, attention, residual connections) are folded into these layers, so no
    operation is added; attention's own factor on the logits is set where a module keeps it in an
    attribute. The residual stream is not renormalised after each addition. That changes nothing but
    its size, because a norm comes before every layer that reads it.

    Args:
        model: freshly built.
        example: what to call the model with: a tensor, a mapping of keyword arguments, or a pair
            (input, target). Attention's factor is that of the example's length.
        alphas: u-muP's hyperparameters.
        init: draw weights from N(0, 1), set biases to 0 and norm gains to 1; False leaves them.

    Returns:
        the factors that the layers got.

    Raises:
        ValueError: the model does something that no rule covers, and the message lists everything;
            or it is a single layer. The model is then as it was.

    >>> from torch.nn import functional as F
    >>> net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4))
    >>> sorted(unit_scale_(net, torch.randn(2, 8)).readouts)
    ['2']
    """
    require_model(model)
    layers = {p: m for p, m in model.named_modules() if layer_kind(m) is not None}
    sizes = {name: size for p, m in layers.items() for name, size in _sizes(p, m).items()}
    atoms = find_atoms(trace(model, example))
    alphas = alphas or Alphas()
    logits = _logit_factors(model, atoms, alphas)
    factors = find_factors(atoms, sizes, alphas, logits)
    swaps = {path: unit_scaled_layer(path, m, factors, alphas) for path, m in layers.items()}
    owned = {id(p) for path in swaps for p in layers[path]._parameters.values()}
    tables = [(n, p) for n, p in model.named_parameters() if id(p) not in owned]
    strange = [f"{n} {tuple(p.shape)}" for n, p in tables if p.dim() != 2]
    unseen = [p for p in sizes if p not in factors.linear]
    if strange or unseen:
        raise ValueError(
            f"u-muP knows no role for {', '.join(strange + unseen)}: parameters outside of Linear, "
            "Embedding and norms, or layers that the example did not reach"
        )
    for path, new in swaps.items():
        if new is not None:
            replace_layer_(model, path, new)
    # Nested tensors, which torch's encoders make of padding, are for torch's own attention only.
    nested = [
        ModuleScale(path, names.NESTED_TENSORS, 1.0, 0.0, "switch")
        for path in nested_encoders(model)
    ]
    factors = replace(factors, attention=(*factors.attention, *nested))
    for found in factors.attention:
        set_scale_(model, found, found.value)
    if init:
        _initialise_(model)
    return factors


def unit_scaled_plan(
    model: nn.Module,
    example: Any,
    *,
    roles: Overrides | None = None,
    alphas: Alphas | None = None,
    init: bool = True,
    before: Plan | None = None,
) -> Plan:
    """What ``parametrize_(model, "u-mup")`` does: convert a plain model, and plan it.

    A model that is made of `paramz.nn` layers already is only planned, and one that was converted
    before keeps its plan.

    Args:
        model: the model.
        example: as for `unit_scale_`; only a plain model needs it.
        roles: refused; an argument so that the message can say why.
        alphas: as for `unit_scale_`.
        init: likewise.
        before: the plan that the model is under, if it is under one.

    Raises:
        TypeError: there is no example.
        ValueError: as for `unit_scale_`; the model is under another plan; roles are given; or
            alphas are given for layers that were built with alphas of their own.
    """
    if roles:
        raise ValueError(
            f"roles={dict(roles)} cannot be given to u-mup, which finds the role of a tensor from "
            "what its layer does: leave roles out, or build the model from paramz.nn (Readout for "
            "an output, Linear for a hidden matrix, Embedding for an input)"
        )
    own = Linear | Conv1D | Convolution | MultiheadAttention
    plain = not any(isinstance(m, own) for m in model.modules())
    if alphas is not None and not plain:
        raise ValueError(
            f"{alphas} comes too late: the layers of this {type(model).__name__} are unit-scaled "
            "already, with alphas of their own. Give alphas where it is built, or convert a plain "
            "model built afresh"
        )
    if before is not None:
        if before.parametrization != U_MUP:
            raise ValueError(
                f"the model is already under {before.parametrization.name}: build it afresh"
            )
        return before
    if plain:
        if example is None:
            raise TypeError(
                "example is missing. u-muP looks at what the model computes, so it must run once: "
                "pass example=batch, as in training (for a language model, token ids of the length "
                "that you train with)"
            )
        factors = unit_scale_(model, example, alphas=alphas, init=init)
        return replace(unit_plan(model), attention=factors.attention)
    return unit_plan(model)


def _logit_factors(
    model: nn.Module, atoms: Sequence[Atom], alphas: Alphas
) -> tuple[ModuleScale, ...]:
    """The attention modules that keep their factor on the logits in an attribute."""
    found = []
    for atom in atoms:
        if atom.kind != "attention":
            continue
        own = vars(model.get_submodule(atom.path))
        if "scale" not in atom.facts:
            continue  # a MultiheadAttention, which is replaced as a whole
        scale, new = atom.facts["scale"], alphas.attn_softmax / atom.facts["d_head"]
        attribute = next((name for name in names.LOGIT_SCALES if own.get(name) == scale), None)
        if attribute is not None:
            found.append(ModuleScale(atom.path, attribute, scale, new))
    return tuple(found)


def _sizes(path: str, module: Any) -> dict[str, tuple[int, float]]:
    """(fan_in, fan_out) of the linear maps of a layer, by path."""
    kind = layer_kind(module)
    if kind == "conv":
        sizes = (module.in_channels, module.out_channels, module.kernel_size, module.stride)
        return {path: conv_fans(*sizes, module.groups)}
    if kind == "multihead":
        return {join(path, name): (module.embed_dim,) * 2 for name in PROJECTIONS}
    if kind == "linear":
        fan_out, fan_in = module.weight.shape
        return {path: (fan_in, fan_out) if isinstance(module, nn.Linear) else (fan_out, fan_in)}
    return {}


def _initialise_(model: nn.Module) -> None:
    for module in model.modules():
        norm = isinstance(module, LayerNorm | RMSNorm)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            with torch.no_grad():
                if name in ("bias", "in_proj_bias"):
                    parameter.zero_()
                elif norm:
                    parameter.fill_(1.0)
                else:
                    parameter.normal_()
    zero_padding_rows_(model)
