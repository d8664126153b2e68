"""The plan of a model made of unit-scaled layers: roles by the layers' types, sizes as ratios."""

from __future__ import annotations

import math

from torch import nn

from paramz.anatomy.names import UNIT_DEPTH, UNIT_TYPE
from paramz.anatomy.paths import split
from paramz.anatomy.sound import require_model
from paramz.anatomy.tensors import Owned, owners_of_parameters
from paramz.nn.layers.convolution import Convolution
from paramz.nn.layers.linear import Conv1D, Linear, Readout
from paramz.nn.layers.modules import Embedding, LayerNorm, RMSNorm
from paramz.nn.layers.multihead import MultiheadAttention
from paramz.plan.plan import Plan
from paramz.plan.row import Row
from paramz.theory.rules import Role
from paramz.theory.tables import U_MUP


def unit_plan(model: nn.Module) -> Plan:
    """The u-muP plan of a model of `paramz.nn` layers: its learning rates and decay.

    A tensor inside a stack, the outermost list of two or more blocks of one type, has their number
    as its depth. Bare parameters are tables of positions, looked up by their first axis.
    A parameter that declares its type (``paramz.compat.unit_scaling.Parameter``, or the original's)
    has the role of that type.

    Raises:
        ValueError: a parameter belongs to a layer that is not unit-scaled.

    >>> from paramz.nn import TransformerDecoder
    >>> model = TransformerDecoder(64, vocabulary=11, layers=4, heads=2)
    >>> groups = unit_plan(model).param_groups(model, "adamw", lr=1.0)
    >>> [(g["roles"], g["lr"]) for g in groups]
    [(['input'], 0.125), (['hidden'], 0.0625), (['hidden'], 0.03125), (['output'], 1.0)]
    """
    require_model(model)
    rows = []
    for owners in owners_of_parameters(model):
        first = owners[0]
        shape = tuple(first.parameter.shape)
        role, why, ratios = _role(first)
        depth = getattr(first.parameter, UNIT_DEPTH, None) or _depth(model, first.path)
        rows.append(
            Row(
                name=first.name,
                aliases=tuple(each.name for each in owners[1:]),
                shape=shape,
                base_shape=(1,) * len(shape),
                role=role,
                why=why,
                ratios={**ratios, **({"depth": float(depth)} if depth > 1 else {})},
                growing=tuple(range(len(shape))),
            )
        )
    return Plan(parametrization=U_MUP, rows=tuple(rows), folded=False)


def _role(owned: Owned) -> tuple[Role, str, dict[str, float]]:
    """The role of a parameter, why, and its sizes."""
    module, local, shape = owned.module, owned.local, tuple(owned.parameter.shape)
    kind = type(module).__name__
    declared = getattr(owned.parameter, UNIT_TYPE, None)
    if declared in ("bias", "norm"):
        return "vector", f"its {UNIT_TYPE} is {declared}", {"fan_out": float((*shape, 1)[0])}
    if isinstance(module, Embedding):
        return "input", f"{kind}: looked up", {"fan_out": float(shape[1])}
    if declared is not None:
        fans = {"fan_in": float(math.prod(shape[1:] or shape)), "fan_out": float(shape[0])}
        role: Role = "output" if declared == "output" else "hidden"
        return role, f"its {UNIT_TYPE} is {declared}", fans
    if local in ("bias", "in_proj_bias") or isinstance(module, LayerNorm | RMSNorm):
        return "vector", f"{kind}: entrywise", {"fan_out": float(shape[0])}
    if isinstance(module, Linear | Conv1D):
        fan_out, fan_in = shape if isinstance(module, Linear) else shape[::-1]
        sizes = {"fan_in": float(fan_in), "fan_out": float(fan_out)}
        readout = isinstance(module, Readout)
        return ("output", "readout", sizes) if readout else ("hidden", kind, sizes)
    if isinstance(module, Convolution):
        sizes = {"fan_in": float(math.prod(shape[1:])), "fan_out": float(shape[0])}
        return "hidden", kind, sizes
    if isinstance(module, MultiheadAttention):
        return "hidden", kind, {"fan_in": float(shape[1]), "fan_out": float(shape[0])}
    if len(shape) == 2 and local != "weight":
        return "input", f"table of {kind}", {"fan_out": float(shape[1])}
    raise ValueError(
        f"{owned.name} {shape} belongs to {kind}, which is not unit-scaled: build it from "
        "paramz.nn, or convert the model with paramz.parametrize_(model, 'u-mup', example=batch)"
    )


def _depth(model: nn.Module, path: str) -> int:
    """The length of the outermost stack that a module is in; 1 if it is in none."""
    above = [path]
    while above[-1]:
        above.append(split(above[-1])[0])
    for ancestor, inner in zip(above[:0:-1], above[-2::-1], strict=True):
        container = model.get_submodule(ancestor)
        if not isinstance(container, nn.ModuleList | nn.Sequential):
            continue
        kinds = [type(child) for child in container if next(child.children(), None) is not None]
        own = type(model.get_submodule(inner))
        # What stands beside the blocks in one nn.Sequential, as embedding and readout may, is of
        # other types; stages that are lists themselves have their own lengths.
        alone = len(kinds) == len(container) and len(set(kinds)) == 1
        if kinds.count(own) > 1 and (alone or not issubclass(own, nn.ModuleList | nn.Sequential)):
            return kinds.count(own)
    return 1
