"""Roles: what each tensor is, found by comparing the base model with a wider probe.

An axis that differs between the probes grows with width. Which axes grow, and whether they are
fan_in or fan_out, is the role: both hidden, fan_out input, fan_in output, entrywise vector, none
scalar. Routers and experts are recognised by the layer they are in. Every row keeps its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paramz.anatomy.axes import Axes
from paramz.anatomy.facts import TensorFacts
from paramz.anatomy.tensors import ModelTensor, listed
from paramz.plan.collapsed import collapse_notes
from paramz.plan.inside import PARTS, adapted_role, inner_role
from paramz.plan.row import Row
from paramz.plan.sliced import slices_of
from paramz.plan.untold import (
    entered_in_code,
    named_apart,
    suggest,
    tied_in_code,
    without_type,
)
from paramz.theory.rules import ROLES, Role

Overrides = Mapping[str, Role | Axes]


@dataclass(frozen=True)
class _Finding:
    """What was found out about one tensor.

    Attributes:
        role: its role.
        why: how that was found.
        axes: which of its axes are fan_in and fan_out.
        readouts: modules that use it as readout while its role is input.
    """

    role: Role
    why: str
    axes: Axes
    readouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Override:
    """What the user said of a tensor, and by which pattern."""

    pattern: str
    value: Role | Axes

    @property
    def why(self) -> str:
        return f"roles[{self.pattern!r}]"


def find_roles(tensors: Sequence[TensorFacts], overrides: Overrides | None = None) -> list[Row]:
    """One `Row` per parameter, in the order of ``named_parameters()``.

    Args:
        tensors: those of the target, as `paramz.anatomy.facts.read_facts` finds them.
        overrides: ordered ``{regex: role or Axes}``, searched in the parameter name; first match
            wins.

    Raises:
        ValueError: a tensor's role is ambiguous, an override matches nothing, nothing grows, or a
            dimension of the target differs that does not grow with width. The message names the
            tensors and what to pass.
    """
    chosen = _match_overrides([facts.tensor for facts in tensors], overrides or {})
    rows, problems = [], []
    for facts in tensors:
        try:
            rows.append(_row(facts, chosen.get(facts.name)))
        except ValueError as error:
            problems.append(named_apart(str(error), facts, tensors))
    if problems:
        raise ValueError("\n".join(collapse_notes(problems)))
    if not any(row.growing or row.adapted for row in rows):
        raise ValueError(
            "base and wider probe have the same shapes everywhere: nothing grows with width. Does "
            "the factory use its width argument?"
        )
    return rows


def _match_overrides(tensors: Sequence[ModelTensor], overrides: Overrides) -> dict[str, _Override]:
    chosen: dict[str, _Override] = {}
    for regex, value in overrides.items():
        if not isinstance(value, Axes) and value not in ROLES:
            raise ValueError(
                f"roles[{regex!r}] = {value!r} is no role; the roles are {', '.join(ROLES)}, "
                "or give paramz.Axes(fan_in=(..), fan_out=(..))"
            )
        found = [t.names[0] for t in tensors if any(re.search(regex, name) for name in t.names)]
        if not found:
            known = [tensor.names[0] for tensor in tensors]
            raise ValueError(
                f"roles[{regex!r}] matches no parameter; there are {listed(known, 12)}"
            )
        for name in found:
            chosen.setdefault(name, _Override(regex, value))
    return chosen


def _row(facts: TensorFacts, override: _Override | None) -> Row:
    if facts.tensor.integers:
        # Nothing about it is scaled, and packed ones have another shape than the base's.
        return Row(
            name=facts.name,
            aliases=facts.tensor.names[1:],
            shape=facts.tensor.shape,
            base_shape=facts.base_shape,
            role="scalar",
            why="integers: quantised and frozen, left as they are",
        )
    _require_known_shape(facts)
    target, growing = facts.tensor, facts.growing
    found = _decide(facts, override)
    role, why = found.role, found.why
    part = None if override is not None or facts.moe is None else facts.moe.kind
    if part == "balance":
        role, why = "scalar", "balances experts: no gradient reaches it"
    elif part is not None and (role, part) in PARTS:
        role, why = part, f"{part}: {why}"
    elif override is None and facts.adapter_ratios:
        role, why = adapted_role(facts)
    elif override is None and not found.readouts:
        role, why = inner_role(role, why, facts.place)
    whole = found.readouts or (override is not None and not isinstance(override.value, Axes))
    ratios = {
        scale: _ratio(facts, used)
        for scale, used in (
            ("fan_in", [a for a in found.axes.fan_in if a in growing]),
            ("fan_out", [a for a in found.axes.fan_out if a in growing]),
        )
        if used
    }
    return Row(
        name=facts.name,
        aliases=target.names[1:],
        shape=target.shape,
        base_shape=facts.base_shape,
        role=role,
        why=why,
        ratios={**ratios, **facts.expert_ratios, **facts.adapter_ratios},
        growing=growing,
        readouts=found.readouts,
        slices=() if whole else slices_of(facts, role, found.axes),
    )


def _require_known_shape(facts: TensorFacts) -> None:
    """Every axis in which the target differs from the base has to have a rule."""
    name, target = facts.name, facts.tensor.shape
    base, wider = facts.base_shape, facts.wider_shape
    if len(base) != len(wider) or len(base) != len(target):
        raise ValueError(
            f"{name}: base {base}, wider {wider} and target {target} differ in their number of axes"
        )
    free = [facts.moe.axis] if facts.moe is not None and facts.expert_ratios else []
    free += facts.adapter.moving if facts.adapter is not None and facts.adapter_ratios else ()
    for axis, (b, t) in enumerate(zip(base, target, strict=True)):
        counts = facts.moe is not None and axis == facts.moe.axis and axis not in free
        units = counts and facts.moe is not None and facts.moe.times not in (None, 1.0)
        if units or (b != t and axis not in facts.growing and axis not in free):
            if counts:
                what = "the units of all experts" if units else "experts"
                raise ValueError(
                    f"{name}: axis {axis} counts {what}, {b} in the base and {t} in the target. "
                    "'mup+moe' has the rules for their number; or give both as many"
                )
            raise ValueError(
                f"{name}: axis {axis} is {b} in the base and {t} in the target, but the same in "
                f"base and wider probe {wider}, so no rule covers it. Give base and target "
                "the same size there, or let it grow with width."
            )


def _ratio(facts: TensorFacts, axes: list[int]) -> float:
    """Target / base of what grows of some axes."""
    ratio = 1.0
    for axis in axes:
        stays = facts.stays.get(axis, 0)
        ratio *= (facts.tensor.shape[axis] - stays) / (facts.base_shape[axis] - stays)
        if facts.moe is not None and facts.moe.axis == axis:
            ratio /= facts.moe.times or 1.0
    return ratio


def _decide(facts: TensorFacts, override: _Override | None) -> _Finding:
    tensor, growing, shown = facts.tensor, facts.growing, facts.place.axes
    if override is not None:
        return _overridden(tensor, growing, override)
    if not growing:
        return _Finding("scalar", "no axis grows", Axes())
    if facts.adapter is not None:
        axes = facts.adapter.axes
        role, why = role_by_axes(axes, growing, tensor.uses[0].kind)
        return _Finding(role, why, axes)
    if shown is not None:
        use = tensor.uses[0]
        told = use.axes is not None and not use.axes.vector
        how = "used transposed" if told else "as a run uses it"
        role, why = role_by_axes(shown, growing, f"{use.kind}, {how}")
        return _Finding(role, why, shown)
    found: dict[Role, tuple[str, Axes, list[str]]] = {}
    for use in tensor.uses:
        if (own := use.axes_where(growing)) is not None:
            role, why = role_by_axes(own, growing, use.kind)
            found.setdefault(role, (why, own, []))[2].append(use.module)
    if not found and not facts.place.reads_out:
        raise ValueError(without_type(tensor, growing))
    if not found:
        raise ValueError(tied_in_code(tensor))
    if len(found) == 1:
        if facts.place.reads_out:
            raise ValueError(tied_in_code(tensor))
        if facts.place.enters:
            raise ValueError(entered_in_code(tensor))
        role, (why, axes, _) = next(iter(found.items()))
        return _Finding(role, why, axes)
    if set(found) == {"input", "output"}:
        _, axes, _ = found["input"]
        return _Finding("input", "tied: embedding and readout", axes, tuple(found["output"][2]))
    uses = ", ".join(f"{role} in {', '.join(where)}" for role, (_, _, where) in found.items())
    raise ValueError(
        f"{tensor.names[0]} {tensor.shape} is shared by modules that give it different roles "
        f"({uses}). Say which one it is: {suggest(tensor.names[0])}"
    )


def _overridden(tensor: ModelTensor, growing: tuple[int, ...], override: _Override) -> _Finding:
    value = override.value
    if isinstance(value, Axes):
        role, why = role_by_axes(value, growing, override.why)
        return _Finding(role, why, value)
    readouts = _readouts(tensor, growing) if value == "input" else ()
    return _Finding(value, override.why, _axes_for(value, tensor, growing), readouts)


def role_by_axes(axes: Axes, growing: tuple[int, ...], kind: str) -> tuple[Role, str]:
    """The role of a tensor by which of its axes grow, and the reason.

    Args:
        axes: its fan_in and fan_out.
        growing: the axes that grow with width.
        kind: whose tensor it is, for the reason.
    """
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


def _readouts(tensor: ModelTensor, growing: tuple[int, ...]) -> tuple[str, ...]:
    known = [(use.module, use.axes_where(growing)) for use in tensor.uses]
    return tuple(
        module for module, axes in known if axes and role_by_axes(axes, growing, "")[0] == "output"
    )


# The ratio that a role's rules read; without it they would all be 1, silently.
_READS = {
    "input": "fan_out", "outward": "fan_out", "vector": "fan_out",
    "output": "fan_in", "inward": "fan_in", "latent": "fan_in",
}  # fmt: skip


def _axes_for(role: Role, tensor: ModelTensor, growing: tuple[int, ...]) -> Axes:
    """The axes of a tensor whose role the user gave: a module's, if they give its ratio."""
    for use in tensor.uses:
        axes = use.axes_where(growing)
        if axes and (role not in _READS or set(getattr(axes, _READS[role])) & set(growing)):
            return axes
    if role in ("output", "inward", "latent", "router"):
        return Axes(fan_in=growing)
    if role in ("hidden", "expert"):
        return Axes(fan_in=growing[-1:], fan_out=growing[:-1])
    return Axes(fan_out=growing, vector=role == "vector")
