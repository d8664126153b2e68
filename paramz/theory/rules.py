"""The types of the theory: a `Rule` for one tensor, and a `Parametrization`, a table of rules.

Every rule is made of powers of scale ratios (`paramz.Power`), so at the base it is the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, get_args

from paramz.theory.alternatives import require_one_of_each
from paramz.theory.decay import DECAYS
from paramz.theory.families import Family as Family
from paramz.theory.power import ONE as ONE
from paramz.theory.power import SCALES as SCALES
from paramz.theory.power import Power as Power

Role = Literal[
    "input",
    "hidden",
    "output",
    "vector",
    "scalar",
    "inward",
    "latent",
    "outward",
    "router",
    "expert",
]

ROLES: tuple[Role, ...] = get_args(Role)

# A table without a row for these roles has one for the role that they are a special case of.
SPECIAL_CASE_OF: Mapping[str, str] = MappingProxyType(
    {
        "inward": "hidden",
        "latent": "hidden",
        "outward": "hidden",
        "router": "hidden",
        "expert": "hidden",
    }
)

# The scale that counts a tensor's outputs, where that is not fan_out.
_COUNTS_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {"router": "experts", "latent": "rank", "inward": "rank"}
)

# Decay keeps lr * weight_decay constant unless a scheme says otherwise.
USUAL_DECAY = "lr-constant"

# The factor 1/sqrt(d_head) on attention logits, which is in the code of the models themselves.
USUAL_ATTENTION = Power(head=Fraction(-1, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one tensor's hyperparameters move with the scale ratios. Every field is a `Power`.

    ``init_std`` and ``multiplier`` belong to the weight (W = multiplier * w, std of w), the others
    to the optimizer. ``weight_decay`` is stated for decoupled decay (p -= lr wd p). ``damping_a``
    and ``damping_b`` are for constants added to E[a a^T] of a layer's inputs and to E[g g^T] of the
    gradients of its outputs (K-FAC).

    >>> hidden = Rule(init_std=Power(fan_in=Fraction(-1, 2)), lr=Power(fan_in=-1))
    >>> print(hidden.lr, "|", (hidden * hidden).lr)
    fan_in^-1 | fan_in^-2
    """

    init_std: Power = ONE
    multiplier: Power = ONE
    lr: Power = ONE
    eps: Power = ONE
    weight_decay: Power = ONE
    damping_a: Power = ONE
    damping_b: Power = ONE

    def __mul__(self, other: Rule) -> Rule:
        return Rule(**{f: getattr(self, f) * getattr(other, f) for f in _RULE_FIELDS})

    def shift(self, a: Power, family: Family, *, behind: bool = False) -> Rule:
        """The same training run with a factor ``a`` moved from the weight into the multiplier.

        The abc symmetry (Yang and Hu 2021, TP-IV, appendix B; Yang et al. 2022, TP-V, lemma J.1):
        w -> w / a, multiplier -> a * multiplier, lr -> lr / a^k, eps -> eps * a^j, decoupled
        decay -> wd * a^k, with k, j of the optimizer's family. The trajectory of ``multiplier * w``
        is unchanged. One damping moves by a^2: that of the inputs, or with ``behind`` (the
        multiplier stands behind the weight) that of the outputs.
        """
        k = family.lr_shift if family.behind is None or not behind else family.behind
        squared = ONE if family.damping is None else a**2
        return Rule(
            init_std=self.init_std / a,
            multiplier=self.multiplier * a,
            lr=self.lr / a**k,
            eps=self.eps * a**family.eps_shift,
            weight_decay=self.weight_decay * a**k,
            damping_a=self.damping_a * (ONE if behind else squared),
            damping_b=self.damping_b * (squared if behind else ONE),
        )

    def folded(self, family: Family) -> Rule:
        """The equivalent rule whose multiplier is 1: nothing is left to do in forward."""
        return self.shift(self.multiplier**-1, family)

    def to_json(self) -> dict[str, dict[str, str]]:
        """Fields whose power is not 1."""
        powers = {name: getattr(self, name) for name in _RULE_FIELDS}
        return {name: power.to_json() for name, power in powers.items() if power != ONE}

    @classmethod
    def from_json(cls, fields: Mapping[str, Mapping[str, str]]) -> Rule:
        """The inverse of `to_json`."""
        return cls(**{name: Power.from_json(power) for name, power in fields.items()})


_RULE_FIELDS = (
    "init_std", "multiplier", "lr", "eps", "weight_decay", "damping_a", "damping_b"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Parametrization:
    """A named table: (column of an optimizer family, role of a tensor) -> `Rule`, with its source.

    Attributes:
        name: as users write it, such as ``"mup"``.
        source: the paper and table, for people.
        rules: the table. A missing entry means the theory has no rule there (Muon on a bias), and
            asking for it raises.
        attention: the factor on attention logits, in the ratio ``head`` of head sizes:
            ``head^-1/2`` is the usual 1/sqrt(d_head), ``head^-1`` is muP's 1/d_head.
        branch: the factor on every residual branch, in the ratio ``depth``.
        unit_scaled: every weight starts at unit scale, so the ratios of its rules are the sizes
            themselves, as if the base had width and depth 1.
        decay: the policy that weight decay follows unless the user names another; the policies are
            in `paramz.DECAYS`.

    >>> import paramz
    >>> print(paramz.MUP.rule("adam", "hidden").lr)
    fan_in^-1
    """

    name: str
    source: str
    rules: Mapping[tuple[str, str], Rule]
    attention: Power = USUAL_ATTENTION
    branch: Power = ONE
    unit_scaled: bool = False
    decay: str = USUAL_DECAY

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))
        if self.decay not in DECAYS:
            raise ValueError(
                f"{self.name}: decay={self.decay!r} is no policy; there are {', '.join(DECAYS)}"
            )
        weights: dict[str, tuple[Power, Power]] = {}
        for (column, role), rule in self.rules.items():
            mine = (rule.init_std, rule.multiplier)
            if weights.setdefault(role, mine) != mine:
                raise ValueError(
                    f"{self.name}: {column} x {role} has another init std or multiplier than the "
                    "columns before it, but weights are drawn before the optimizer is known"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return (Parametrization.from_json, (self.to_json(),))

    @property
    def columns(self) -> tuple[str, ...]:
        """The optimizer columns that the table has, in order."""
        return tuple(dict.fromkeys(column for column, _ in self.rules))

    @property
    def scales(self) -> frozenset[str]:
        """The scales that any rule moves with.

        >>> import paramz
        >>> sorted(paramz.COMPLETEP.scales)
        ['depth', 'loops']
        """
        powers = [getattr(rule, f) for rule in self.rules.values() for f in _RULE_FIELDS]
        return frozenset(scale for power in [*powers, self.branch] for scale, _ in power.exponents)

    def rule(self, column: str, role: str, name: str = "") -> Rule:
        """The rule of a column and role.

        A router reads ``hidden`` where the table has no row for it, and so do an expert and the
        maps into a bottleneck and out of it.

        Args:
            column: of the table.
            role: the tensor's.
            name: of the optimizer that reads the column, for the message.

        Raises:
            KeyError: the table has no such entry; the message lists what it has.
        """
        found = self._entry(column, role)
        if found is not None:
            return found
        who = name or column
        have = sorted(r for c, r in self.rules if c == column)
        hint = f"{who} has rules for {', '.join(have)}"
        if not have:
            hint = (
                f"its columns are {', '.join(self.columns)}. Take an optimizer that reads one of "
                "them (paramz.family(name).column says which), or a scheme that has one for "
                f"{who} (paramz.schemes(), .optimizers)"
            )
        elif column == "muon" and role in ("vector", "scalar"):
            hint += (
                "; they are for matrices only, so give the rest to another optimizer: "
                f"plan.split_groups(model, {who}=dict(lr=...), adamw=dict(lr=...))"
            )
        raise KeyError(f"{self.name} has no rule for {who} x {role}: {hint}")

    def entry(self, family: Family, role: str) -> Rule:
        """The rule of an optimizer's family and a role.

        Shampoo's exponents e need no columns of their own: an update of degree 1 - 2e in the
        gradient has learning rates that are powers linear in e, so they are given by those of
        e = 1/2 (muon) and e = 1 (kfac), and its eps, added to G G^T, is muon's squared. This holds
        for every table that multiplies into another, as the products are taken rule by rule.

        SOAP's steps have entries of one size in the rotated basis, where an input lies along few
        directions: the size of an output's change is lr times the size of the input, whatever the
        number of outputs. So it has muon's learning rates without their powers of fan_out, which
        for a router is the number of experts, and for an adapter's first factor its rank.

        Raises:
            KeyError: the table has no such entry; the message lists what it has.

        >>> import paramz
        >>> from paramz.theory.families import shampoo
        >>> print(paramz.MUP.entry(shampoo(Fraction(3, 4)), "hidden").lr)
        fan_in^-1/4 fan_out^1/4
        """
        e = family.exponent
        if family.rotated:
            muon = self.rule("muon", role, family.name)
            without = ("fan_out", _COUNTS_OUTPUTS.get(role, "fan_out"))
            lr = Power(**{s: x for s, x in muon.lr.exponents if s not in without})
            return replace(muon, lr=lr, weight_decay=1 / lr)
        if e is None:
            return self.rule(family.column, role, family.name)
        half = self.rule("muon", role, family.name)
        lr = half.lr ** (2 - 2 * e)
        if family.graft is not None:
            lr = self.rule(family.graft, role).lr
        elif e != Fraction(1, 2):
            whole = self.rule("kfac", role).lr
            # K-FAC's B is a sum over the runs of a shared block, and Shampoo's factors are not.
            runs = dict(whole.exponents).get("depth", Fraction(0))
            lr = lr * (whole * Power(loops=-runs)) ** (2 * e - 1)
        return replace(half, lr=lr, eps=half.eps**2, weight_decay=1 / lr)

    def _entry(self, column: str, role: str) -> Rule | None:
        own = self.rules.get((column, role))
        if own is None and role in SPECIAL_CASE_OF:
            return self.rules.get((column, SPECIAL_CASE_OF[role]))
        return own

    def __mul__(self, other: Parametrization) -> Parametrization:
        """Composition: rules multiply entry by entry; an entry that one side lacks is 1 there.

        A column that one side lacks altogether is left out: that side says nothing of such
        optimizers. A table without rules is 1. The factors on attention logits multiply relative
        to the usual 1/sqrt(d_head).

        Raises:
            ValueError: one of them is unit-scaled, or both have rules for the same thing (muP
                twice, or two depth schemes).

        >>> import paramz
        >>> (paramz.MUP * paramz.Parametrization(name="x", source="", rules={})).name
        'mup+x'
        """
        for whole in (self, other):
            if whole.unit_scaled:
                raise ValueError(
                    f"{self.name} * {other.name}: {whole.name} has rules for width and depth that "
                    "start from size 1, so it cannot be multiplied with another scheme; use it "
                    "alone"
                )
        require_one_of_each([*self.name.split("+"), *other.name.split("+")])
        both = [t.columns for t in (self, other) if t.rules]
        keys = dict.fromkeys(
            (c, r) for c, r in [*self.rules, *other.rules] if all(c in have for have in both)
        )
        plain = Rule()
        return Parametrization(
            name=f"{self.name}+{other.name}",
            source=f"{self.source}; {other.source}",
            rules={k: (self._entry(*k) or plain) * (other._entry(*k) or plain) for k in keys},
            attention=self.attention * other.attention / USUAL_ATTENTION,
            branch=self.branch * other.branch,
            decay=self.decay if self.decay != USUAL_DECAY else other.decay,
        )

    def shift(self, families: Mapping[str, Family], **roles: Power) -> Parametrization:
        """The same parametrization with a factor moved into the multiplier of some roles.

        Args:
            families: one family per column of the table (their abc exponents).
            **roles: the factor per role, such as ``output=Power(fan_in=-1)``.
        """
        return replace(
            self,
            rules={
                (column, role): rule.shift(roles[role], families[column]) if role in roles else rule
                for (column, role), rule in self.rules.items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        """The whole table, so that a saved plan does not depend on the version that reads it."""
        return {
            "name": self.name,
            "source": self.source,
            "attention": self.attention.to_json(),
            "branch": self.branch.to_json(),
            "unit_scaled": self.unit_scaled,
            "absolute": self.unit_scaled,  # the same, as earlier code reads it
            "decay": self.decay,
            "special_cases": dict(SPECIAL_CASE_OF),
            "rules": [[c, r, rule.to_json()] for (c, r), rule in self.rules.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Parametrization:
        """The inverse of `to_json`.

        >>> import paramz
        >>> Parametrization.from_json(paramz.MUP.to_json()) == paramz.MUP
        True
        """
        rules = {(c, r): Rule.from_json(rule) for c, r, rule in data["rules"]}
        if "special_cases" not in data:  # of before routers started like hidden matrices
            readouts = {(c, "router"): rule for (c, r), rule in rules.items() if r == "output"}
            rules = readouts | rules
        # Plans written by version 0.1 before the layout of folders have this key and no decay.
        unit_scaled = data.get("unit_scaled", data.get("absolute", False))
        return cls(
            name=data["name"],
            source=data["source"],
            attention=Power.from_json(data["attention"]),
            branch=Power.from_json(data.get("branch", {})),
            unit_scaled=unit_scaled,
            decay=data.get("decay", "independent" if unit_scaled else USUAL_DECAY),
            rules=rules,
        )
