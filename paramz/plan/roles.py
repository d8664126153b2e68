"""Roles: what each tensor is, found by comparing the base model with a wider probe.

An axis that differs between the probes grows with width. Which axes grow, and whether they are
fan_in or fan_out, is the role: both hidden, fan_out input, fan_in output, entrywise vector, none
scalar. Routers and experts are told by the layer they are in. Every row keeps its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from torch import nn

from paramz.anatomy.axes import Axes, axes_of
from paramz.anatomy.moe import Part, find_layers, find_parts
from paramz.anatomy.probes import Probes
from paramz.anatomy.twins import resized
from paramz.apply.initial import Init
from paramz.plan.rulebook import PartOf
from paramz.theory.rules import ROLES, Role

Overrides = Mapping[str, Role | Axes]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor of the target model and what paramz knows of it.

    Attributes:
        name: the parameter's first name in the model.
        aliases: its other names, when it is tied.
        shape, base_shape: at the target and at the base.
        role: the row of the tables it reads.
        why: how the role was found.
        ratios: target / base of fan_in and fan_out, where they grow; of depth inside residual
            branches, and of experts and top_k inside mixture-of-experts layers, where the
            parametrization has rules for them.
        growing: the axes that grow.
        readouts: modules that use a tied tensor as readout while its role is input.
        block: the block whose residual branch it is inside, where depth is scaled.
        ends: the output of a residual branch is linear in it, so it takes the branch factor.
        base_init: the base model's init, measured; None until then.
        factor: what the target's own init was multiplied by; None until applied.
        part: for a tensor that a reparametrization computes a weight from: of which, and how its
            rule follows.
    """

    name: str
    aliases: tuple[str, ...] = ()
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    role: Role
    why: str
    ratios: Mapping[str, float] = field(default_factory=dict)
    growing: tuple[int, ...] = ()
    readouts: tuple[str, ...] = ()
    block: str | None = None
    ends: bool = False
    base_init: Init | None = None
    factor: float | None = None
    part: PartOf | None = None

    @property
    def widths(self) -> list[float]:
        """Its ratios in width, of those that it has."""
        return [self.ratios[scale] for scale in ("fan_in", "fan_out") if scale in self.ratios]


@dataclass(frozen=True)
class _Use:
    """One appearance of a tensor in a module."""

    module: str
    kind: str
    axes: Axes | None


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    names: tuple[str, ...]
    uses: tuple[_Use, ...]


def find_roles(
    model: nn.Module,
    probes: Probes,
    overrides: Overrides | None = None,
    scales: Set[str] = frozenset(),
) -> list[Row]:
    """One `Row` per parameter of ``model``, in the order of ``named_parameters()``.

    Args:
        model: the target, on any device (only shapes are read).
        probes: base and wider model; parameter names must agree with the target's, by way of the
            probes' twins.
        overrides: ordered ``{regex: role or Axes}``, searched in the parameter name; first match
            wins.
        scales: the scales that the parametrization has rules for; the number of experts may differ
            from the base's only if they are among them.

    Raises:
        ValueError: names of the models differ, a tensor's role is ambiguous, an override matches
            nothing, nothing grows, or a dimension of the target differs that does not grow with
            width. The message names the tensors and what to pass.
    """
    target, base, wider = _read(model), _read(probes.base), _read(probes.wider)
    _same_names(base, wider, "the base model", "the wider probe")
    twins = _twin_names(model, probes, target, base)
    chosen = _match_overrides(target, overrides or {})
    layers = find_layers(model)
    parts = find_parts(model, layers)
    base_layers = find_layers(probes.base)
    rows, problems = [], []
    for name, tensor in target.items():
        twin, part = twins[name], parts.get(name)
        free = part.axis if part is not None and "experts" in scales else None
        try:
            row = _row(name, tensor, base[twin], wider[twin], chosen.get(name), part, free)
        except ValueError as error:
            problems.append(str(error))
            continue
        if part is not None and "experts" in scales:
            layer, base_layer = layers[part.layer], base_layers[probes.twin(part.layer) or ""]
            more = {"experts": layer.experts / base_layer.experts}
            if layer.top_k is not None and base_layer.top_k is not None:
                more["top_k"] = layer.top_k / base_layer.top_k
            row = replace(row, ratios={**row.ratios, **more})
        rows.append(row)
    if problems:
        raise ValueError("\n".join(problems))
    if not any(row.growing for row in rows):
        raise ValueError(
            "base and wider probe have the same shapes everywhere: nothing grows with width. Does "
            "the factory use its width argument?"
        )
    return rows


def _read(model: nn.Module) -> dict[str, _Tensor]:
    by_id: dict[int, list[tuple[str, nn.Module, str]]] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    modules: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        modules.setdefault(path, type(module).__name__)
        for local, parameter in module._parameters.items():
            if parameter is not None:
                full = f"{path}.{local}" if path else local
                by_id.setdefault(id(parameter), []).append((full, module, local))
                shapes[id(parameter)] = tuple(parameter.shape)
    tensors = {}
    for key, uses in by_id.items():
        shape = shapes[key]
        tensors[uses[0][0]] = _Tensor(
            shape,
            tuple(full for full, _, _ in uses),
            tuple(
                _Use(full.rpartition(".")[0], type(module).__name__, axes_of(module, local, shape))
                for full, module, local in uses
            ),
        )
    return tensors


_ONE_WIDTH = (
    "Probes must differ in width alone: give them the target's depth, the same tying and the same "
    "optional layers."
)


def _same_names(
    one: Mapping[str, _Tensor],
    other: Mapping[str, _Tensor],
    one_is: str,
    other_is: str,
    fix: str = _ONE_WIDTH,
) -> None:
    only_one, only_other = [n for n in one if n not in other], [n for n in other if n not in one]
    if only_one or only_other:
        raise ValueError(
            f"{one_is} and {other_is} have different parameters.\n"
            f"  only in {one_is}: {_some(only_one)}\n"
            f"  only in {other_is}: {_some(only_other)}\n"
            f"{fix}"
        )


def _twin_names(
    model: nn.Module, probes: Probes, target: Mapping[str, _Tensor], base: Mapping[str, _Tensor]
) -> dict[str, str]:
    """Target parameter -> base parameter, all of them, or an error."""
    if probes.twins is None:
        sizes = resized(model, probes.base) if target.keys() != base.keys() else []
        fix = (
            f"Here {'; '.join(sizes[:3])}. Make them equal, or scale them: with 'mup+completep' or "
            "'mup+depth-mup' for residual blocks, with 'mup+moe' for experts."
        )
        names = "the target model", "the base model"
        _same_names(target, base, *names, fix if sizes else _ONE_WIDTH)
        return {name: name for name in target}
    twins = {name: probes.twin_name(name) or name for name in target}
    renamed = {twins[name]: tensor for name, tensor in target.items()}
    used = {re.sub(r"\b\d+\b", "#", name) for name in renamed}
    known = {
        n: t for n, t in base.items() if n in renamed or re.sub(r"\b\d+\b", "#", n) not in used
    }
    _same_names(renamed, known, "the target model", "the base model")
    return twins


def _some(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more


def _match_overrides(
    target: Mapping[str, _Tensor], overrides: Overrides
) -> dict[str, tuple[str, Role | Axes]]:
    chosen: dict[str, tuple[str, Role | Axes]] = {}
    for pattern, value in overrides.items():
        if not isinstance(value, Axes) and value not in ROLES:
            raise ValueError(
                f"roles[{pattern!r}] = {value!r} is no role; the roles are {', '.join(ROLES)}, "
                "or give paramz.Axes(fan_in=(..), fan_out=(..))"
            )
        found = [n for n, t in target.items() if any(re.search(pattern, name) for name in t.names)]
        if not found:
            raise ValueError(
                f"roles[{pattern!r}] matches no parameter; there are {_some(list(target), 12)}"
            )
        for name in found:
            chosen.setdefault(name, (pattern, value))
    return chosen


def _row(
    name: str,
    target: _Tensor,
    base: _Tensor,
    wider: _Tensor,
    override: tuple[str, Role | Axes] | None,
    part: Part | None,
    free: int | None,
) -> Row:
    if len(base.shape) != len(wider.shape) or len(base.shape) != len(target.shape):
        raise ValueError(
            f"{name}: base {base.shape}, wider {wider.shape} and target {target.shape} differ in "
            "their number of axes"
        )
    growing = tuple(a for a, size in enumerate(base.shape) if size != wider.shape[a])
    for axis, (b, t) in enumerate(zip(base.shape, target.shape, strict=True)):
        if b != t and axis not in growing and axis != free:
            raise ValueError(
                f"{name}: axis {axis} is {b} in the base and {t} in the target, but the same in "
                f"base and wider probe {wider.shape}, so no rule covers it. Give base and target "
                "the same size there, or let it grow with width."
            )
    role, why, axes, readouts = _decide(name, target, growing, override)
    if part is not None and override is None and (role, part.kind) in _PARTS:
        role, why = part.kind, f"{part.kind}: {why}"
    ratios = {
        scale: _ratio(target.shape, base.shape, used)
        for scale, used in (
            ("fan_in", [a for a in axes.fan_in if a in growing]),
            ("fan_out", [a for a in axes.fan_out if a in growing]),
        )
        if used
    }
    return Row(
        name=name,
        aliases=target.names[1:],
        shape=target.shape,
        base_shape=base.shape,
        role=role,
        why=why,
        ratios=ratios,
        growing=growing,
        readouts=readouts,
    )


# What the special case is a special case of: an expert's bias stays a vector.
_PARTS = (("output", "router"), ("hidden", "expert"))


def _ratio(target: tuple[int, ...], base: tuple[int, ...], axes: list[int]) -> float:
    ratio = 1.0
    for axis in axes:
        ratio *= target[axis] / base[axis]
    return ratio


def _decide(
    name: str, tensor: _Tensor, growing: tuple[int, ...], override: tuple[str, Role | Axes] | None
) -> tuple[Role, str, Axes, tuple[str, ...]]:
    """Role, reason, axes and, for a tied tensor, the modules that read out with it."""
    if override is not None:
        pattern, value = override
        if isinstance(value, Axes):
            return (*_by_axes(value, growing, f"roles[{pattern!r}]"), value, ())
        readouts = _readouts(tensor, growing) if value == "input" else ()
        return value, f"roles[{pattern!r}]", _axes_for(value, tensor, growing), readouts
    if not growing:
        return "scalar", "no axis grows", Axes(), ()
    known = [use for use in tensor.uses if use.axes is not None]
    if not known:
        return (*_without_type(name, tensor, growing), ())
    found: dict[Role, tuple[str, Axes, list[str]]] = {}
    for use in known:
        assert use.axes is not None
        role, why = _by_axes(use.axes, growing, use.kind)
        found.setdefault(role, (why, use.axes, []))[2].append(use.module)
    if len(found) == 1:
        role, (why, axes, _) = next(iter(found.items()))
        return role, why, axes, ()
    if set(found) == {"input", "output"}:
        _, axes, _ = found["input"]
        return "input", "tied: embedding and readout", axes, tuple(found["output"][2])
    uses = ", ".join(f"{role} in {', '.join(where)}" for role, (_, _, where) in found.items())
    raise ValueError(
        f"{name} {tensor.shape} is shared by modules that give it different roles ({uses}). "
        f"Say which one it is: {_suggest(name)}"
    )


def _by_axes(axes: Axes, growing: tuple[int, ...], kind: str) -> tuple[Role, str]:
    grows_in = any(axis in growing for axis in axes.fan_in)
    grows_out = any(axis in growing for axis in axes.fan_out)
    if axes.vector:
        return ("vector", f"{kind}: entrywise") if grows_out else ("scalar", f"{kind}: fixed size")
    if grows_in and grows_out:
        return "hidden", f"{kind}: fan_in and fan_out grow"
    if grows_out:
        return "input", f"{kind}: fan_out grows"
    if grows_in:
        return "output", f"{kind}: fan_in grows"
    return "scalar", f"{kind}: neither fan_in nor fan_out grows"


def _readouts(tensor: _Tensor, growing: tuple[int, ...]) -> tuple[str, ...]:
    known = [(use.module, use.axes) for use in tensor.uses if use.axes is not None]
    return tuple(module for module, axes in known if _by_axes(axes, growing, "")[0] == "output")


# The ratio that a role's rules read; without it they would all be 1, silently.
_READS = {"input": "fan_out", "output": "fan_in", "vector": "fan_out"}


def _axes_for(role: Role, tensor: _Tensor, growing: tuple[int, ...]) -> Axes:
    """The axes of a tensor whose role was said: a module's, if they give the ratio it reads."""
    for use in tensor.uses:
        axes = use.axes
        if axes and (role not in _READS or set(getattr(axes, _READS[role])) & set(growing)):
            return axes
    if role in ("output", "router"):
        return Axes(fan_in=growing)
    if role in ("hidden", "expert"):
        return Axes(fan_in=growing[-1:], fan_out=growing[:-1])
    return Axes(fan_out=growing, vector=role == "vector")


def _without_type(name: str, tensor: _Tensor, growing: tuple[int, ...]) -> tuple[Role, str, Axes]:
    """A bare parameter of a module that paramz does not know."""
    kind = tensor.uses[0].kind
    if len(growing) == 1:
        raise ValueError(
            f"{name} {tensor.shape}: axis {growing[0]} grows with width, but {kind} does not tell "
            "whether that is its fan_out (a table or first layer: role input) or its fan_in (a "
            f"readout: role output). Say which: {_suggest(name, 'input')} or "
            f"{_suggest(name, 'output')}"
        )
    raise ValueError(
        f"{name} {tensor.shape}: axes {growing} grow with width, and {kind} does not tell which is "
        f"fan_in and which fan_out. Say it: roles={{{_pattern(name)}: "
        f"paramz.Axes(fan_in=({growing[-1]},), fan_out=({growing[0]},))}}"
    )


def _pattern(name: str) -> str:
    """A regex for this tensor in every block: layers.0.w -> layers[.][0-9]+[.]w$."""
    parts = ["[0-9]+" if part.isdigit() else part for part in name.split(".")]
    return repr("[.]".join(parts) + "$")


def _suggest(name: str, role: str = "input") -> str:
    return f"roles={{{_pattern(name)}: {role!r}}}"
