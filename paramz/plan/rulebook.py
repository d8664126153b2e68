"""Tensors that a reparametrization computes a weight from, and how their rules follow from its own.

If W is computed from p = s q, where q has a known rule and s is the size that p has at init, then p
has q's rule under the abc symmetry (Yang et al. 2022, TP-V, lemma J.1): lr s^k, eps s^-j.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from paramz.theory.rules import Family, Power, Rule


@dataclass(frozen=True, slots=True)
class PartOf:
    """What a row of the plan says of a tensor that a weight is computed from.

    Attributes:
        weight: the name of that weight.
        size: exponents of s, what the tensor's size is over that of its role, as text.
        uses: exponents of the number of weights that share the tensor, as text.
        decays: weight decay means something for it.
    """

    weight: str
    size: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    decays: bool = True


def part_rule(rule: Rule, part: PartOf, family: Family, *, absolute: bool = False) -> Rule:
    """The rule of a part: its role's rule moved by its size and by the number of its uses.

    A tensor with n uses has n times the gradient, which only an optimizer whose step is linear in
    the gradient has to be told. In an absolute scheme (u-muP) gradients have unit scale whatever
    the size, so every optimizer's step counts like Adam's.

    >>> from paramz.theory.families import SGD
    >>> print(part_rule(Rule(), PartOf("w", {"fan_in": "-1/2"}), SGD).lr)
    fan_in^-1
    """
    if absolute:
        family = replace(family, lr_shift=Fraction(1))
    size, uses = Power.from_json(part.size), Power.from_json(part.uses)
    moved = rule.shift(1 / size, family)
    linear = uses ** (family.lr_shift - 1)
    return replace(
        moved,
        multiplier=rule.multiplier,
        lr=moved.lr / linear,
        eps=moved.eps * uses**family.eps_shift,
        weight_decay=moved.weight_decay * linear,
    )
