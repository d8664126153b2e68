"""The rules of a parametrization in the form that a plan applies them in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from paramz.plan.row import PartOf, Row
from paramz.theory.families import Family
from paramz.theory.power import ONE, Power
from paramz.theory.rules import SPECIAL_CASE_OF, Parametrization, Rule
from paramz.theory.schemes import schemes


@dataclass(frozen=True)
class Rulebook:
    """A parametrization, and whether its multipliers are folded into weights and optimizer.

    Everything that a row of a plan gets follows from these two.

    Attributes:
        scheme: the table.
        folded: multipliers are folded into init, lr, eps and decay.

    >>> import paramz
    >>> print(Rulebook(paramz.MUP).of_role("output").init_std)
    fan_in^-1
    """

    scheme: Parametrization
    folded: bool = True

    def of_role(self, role: str) -> Rule:
        """Init std and multiplier of a role, which do not depend on the optimizer.

        Raises:
            KeyError: no column of the table has the role.
        """
        for wanted in (role, SPECIAL_CASE_OF.get(role)):
            for column, known in self.scheme.rules:
                if known == wanted:
                    rule = self.scheme.rules[column, known]
                    if self.folded:
                        return Rule(init_std=rule.init_std * rule.multiplier)
                    return Rule(init_std=rule.init_std, multiplier=rule.multiplier)
        raise KeyError(f"{self.scheme.name} has no rule for role {role!r}{self._times()}")

    def _times(self) -> str:
        """What to write, if the scheme is only a factor of others."""
        name = self.scheme.name
        use = next((each.use for each in schemes() if each.name == name), "")
        if not use.startswith("times"):
            return ""
        return f": alone it says nothing of that, it is used {use}: 'mup+{name}'"

    def weight(self, row: Row) -> Rule:
        """Init std and multiplier of a row's tensor, with the branch factor of its block."""
        rule = Rule(multiplier=self._branch(row)) * self.of_role(row.role)
        if not self.folded:
            return rule
        return Rule(init_std=rule.init_std * rule.multiplier)

    def rule(self, row: Row, family: Family) -> Rule:
        """The rule of a row's tensor for an optimizer family.

        Raises:
            KeyError: the table has no rule for this family and role, or none over the density of
                masks.
        """
        if family.whole and "density" in row.ratios:
            raise KeyError(
                f"{self.scheme.name} has no rule over density for {family.name}, and {row.name} is "
                "sparser than in the base: the optimizer takes means over the tensor, in which the "
                "zeros of a mask count. Use AdamW, or a base with masks of the same density"
            )
        rule = self.scheme.entry(family, row.role)
        whole = _with_branch(rule, self._branch(row), family, self.folded)
        if row.part is None:
            return whole
        return part_rule(whole, row.part, family, unit_scaled=self.scheme.unit_scaled)

    def branch_factor(self, row: Row) -> float:
        """What is folded into a weight that ends a residual branch; else 1."""
        return self._branch(row)(row.ratios) if self.folded else 1.0

    def init_std(self, row: Row) -> float | None:
        """The std that the row's tensor starts with; None before the base's was measured."""
        if row.base_init is None:
            return None
        return row.base_init.std * self.weight(row).init_std(row.ratios)

    def _branch(self, row: Row) -> Power:
        return self.scheme.branch if row.ends else ONE


@cache
def _with_branch(rule: Rule, branch: Power, family: Family, folded: bool) -> Rule:
    """Thousands of tensors share a few rules, so each is worked out once."""
    if not folded:
        return Rule(multiplier=branch) * rule
    # A layer's own multiplier is in front of its weight, that of a branch behind it.
    whole = Rule(multiplier=branch) * rule.folded(family)
    return whole.shift(1 / branch, family, behind=True)


def part_rule(rule: Rule, part: PartOf, family: Family, *, unit_scaled: bool = False) -> Rule:
    """The rule of a tensor that a weight is computed from, by its size and its number of uses.

    If W is computed from p = s q, where q has a known rule and s is the size that p has at init,
    then p has q's rule under the abc symmetry (Yang et al. 2022, TP-V, lemma J.1): lr s^k,
    eps s^-j. A tensor with n uses has n times the gradient, which matters only to an optimizer
    whose step is linear in the gradient. In a unit-scaled scheme (u-muP) gradients have unit scale
    whatever the size, so every optimizer's step counts like Adam's.

    Args:
        rule: of the tensor's role, q's.
        part: what the tensor is of which weight.
        family: the optimizer's.
        unit_scaled: the scheme's gradients have unit scale.

    >>> from paramz.theory.families import SGD
    >>> print(part_rule(Rule(), PartOf("w", {"fan_in": "-1/2"}), SGD).lr)
    fan_in^-1
    """
    if unit_scaled:
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
