"""The plan: one row per tensor, keyed by name. Pure data, and the only state that paramz keeps.

It hangs on nothing: deepcopy, pickle, state_dict, meta -> to_empty, compile, export, DDP and FSDP
leave it valid, because the model is only ever matched to it by parameter names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from paramz.anatomy.attention import AttentionScale
from paramz.apply.initial import Init
from paramz.plan.groups import Group, param_groups, split_groups
from paramz.plan.roles import Row
from paramz.plan.rulebook import PartOf, part_rule
from paramz.plan.summary import Summary, summarize
from paramz.theory.rules import ONE, SPECIAL_CASE_OF, Family, Parametrization, Power, Rule

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a parametrization means for one model.

    Attributes:
        parametrization: the table in use.
        rows: one per parameter, in the order of ``named_parameters()``.
        attention: attention modules whose logit scale changes.
        multipliers: module path -> factor on its input (on its output for an embedding).
        branches: module path -> factor on its output, for ends of residual branches that have no
            weights to fold it into (or all of them, if not folded).
        notes: what a reader of the plan should know, one sentence each.
        folded: multipliers are folded into init, lr, eps and decay wherever possible.
        computed: rows of weights that a reparametrization computes from other tensors, whose rows
            are among the others.
    """

    parametrization: Parametrization
    rows: tuple[Row, ...]
    attention: tuple[AttentionScale, ...] = ()
    multipliers: Mapping[str, float] = field(default_factory=dict)
    branches: Mapping[str, float] = field(default_factory=dict)
    folded: bool = True
    notes: tuple[str, ...] = ()
    computed: tuple[Row, ...] = ()

    def rule(self, row: Row, family: Family) -> Rule:
        """The rule of a row for an optimizer family, with the multiplier folded if the plan does.

        Raises:
            KeyError: the table has no rule for this family and role.
        """
        rule = self.parametrization.entry(family, row.role)
        branch = self.parametrization.branch if row.ends else ONE
        whole = _rule(rule, branch, family, self.folded)
        if row.part is None:
            return whole
        return part_rule(whole, row.part, family, absolute=self.parametrization.absolute)

    def weight_rule(self, row: Row) -> Rule:
        """The rule as far as the weight is concerned (init std and multiplier)."""
        rule = self._branch(row) * weight_rule(self.parametrization, row.role, folded=self.folded)
        if not self.folded:
            return rule
        return Rule(init_std=rule.init_std * rule.multiplier)

    def branch_factor(self, row: Row) -> float:
        """What is folded into a weight that ends a residual branch; else 1."""
        return self._branch(row).multiplier(row.ratios) if self.folded else 1.0

    def _branch(self, row: Row) -> Rule:
        return Rule(multiplier=self.parametrization.branch) if row.ends else Rule()

    def init_std(self, row: Row) -> float | None:
        """The std that the row's init has under the plan; None before it was measured."""
        if row.base_init is None:
            return None
        return row.base_init.std * self.weight_rule(row).init_std(row.ratios)

    def param_groups(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        lr: float,
        weight_decay: float | None = None,
        eps: float | None = None,
        damping: float | None = None,
        decay: str | None = None,
        no_decay: tuple[str, ...] = (),
        role_lr: Mapping[str, float] | None = None,
        **options: Any,
    ) -> list[Group]:
        """Plain parameter groups for any torch optimizer, with the plan's lr, eps and decay.

        Tensors with equal hyperparameters share a group, so there are few. Ratios between groups
        survive schedulers that multiply; give OneCycleLR ``max_lr=[g["lr"] for g in groups]``.

        Args:
            model: the model (DDP, FSDP and compile wrappers may be around it by now).
            optimizer: name, class or instance, such as ``"adamw"`` or ``torch.optim.AdamW``.
            lr: learning rate at the base.
            weight_decay: at the base; the optimizer's own default if left out (u-muP: 0).
            eps: at the base; the optimizer's own default if left out.
            damping: of K-FAC and FOOF, at the base; the optimizer's own default if left out. Groups
                get it as ``damping`` for damping that is relative to a factor's trace, and times
                the plan's rules as ``damping_a`` and ``damping_b`` for constants on the factors of
                inputs and output gradients.
            decay: what weight_decay means and how it moves: ``"lr-constant"`` (the default; u-muP's
                is ``"independent"``), ``"coupled"``, ``"independent"`` or ``"1/width"``, with their
                sources in `paramz.plan.groups.DECAYS`.
            no_decay: roles without decay, such as ``("vector", "scalar")``.
            role_lr: base learning rates of roles that are tuned apart from ``lr``, such as
                ``{"input": 2**-4}``; the same rules take them to the target.
            **options: passed to every group (betas, momentum, ...). Shampoo's ``exponent``, of
                each side or of the left and right one, chooses its rules.

        Raises:
            ValueError: the model has trainable tensors that the plan does not know or lacks some
                that it does, the optimizer is unknown, an option is out of range, or a readout is
                all zero and the optimizer is K-FAC.
            KeyError: the table has no rule for this optimizer and a tensor's role.
        """
        return param_groups(
            self,
            model,
            optimizer,
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            damping=damping,
            decay=decay,
            no_decay=no_decay,
            role_lr=role_lr,
            **options,
        )

    def split_groups(
        self,
        model: nn.Module,
        *,
        roles: tuple[str, ...] = ("hidden", "expert"),
        **optimizers: Mapping[str, Any],
    ) -> list[list[Group]]:
        """Groups for two optimizers: the first takes hidden matrices, the second all the rest.

        Kernels of convolutions count as matrices, but not for Muon.

        Args:
            model: the model.
            roles: the first optimizer takes the matrices of these roles.
            **optimizers: the options of each, as for `param_groups`.

        >>> import paramz, torch
        >>> net = lambda w=8: torch.nn.Sequential(
        ...     torch.nn.Linear(4, w), torch.nn.Linear(w, w), torch.nn.Linear(w, 2))
        >>> model = net(32)
        >>> plan = paramz.parametrize_(model, "mup", base=net)
        >>> hidden, rest = plan.split_groups(model, muon=dict(lr=0.02), adamw=dict(lr=3e-3))
        >>> len(hidden), hidden[0]["lr"]
        (1, 0.02)

        Raises:
            ValueError: not exactly two optimizers, or as for `param_groups`.
        """
        return split_groups(self, model, optimizers, roles)

    def summary(
        self,
        optimizer: Any = "adamw",
        *,
        exponent: float | tuple[float, float] | None = None,
        full: bool = False,
    ) -> Summary:
        """The plan as a table: prints in a terminal, renders in a notebook.

        Args:
            optimizer: whose lr, eps (or damping) and decay to show.
            exponent: Shampoo's, of each side or of the left and right one.
            full: one line per tensor; else repeated blocks are collapsed.
        """
        return summarize(self, optimizer, exponent=exponent, full=full)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, with the whole table, so that it reads alike in any version."""
        return {
            "format": FORMAT,
            "parametrization": self.parametrization.to_json(),
            "folded": self.folded,
            "rows": [asdict(row) for row in self.rows],
            "attention": [asdict(scale) for scale in self.attention],
            "multipliers": dict(self.multipliers),
            "branches": dict(self.branches),
            "notes": list(self.notes),
            "computed": [asdict(row) for row in self.computed],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`.

        Raises:
            ValueError: the data is of another format.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"plan format {data.get('format')!r}, this version reads {FORMAT}")
        return cls(
            parametrization=Parametrization.from_json(data["parametrization"]),
            rows=tuple(_row(row) for row in data["rows"]),
            attention=tuple(AttentionScale(**scale) for scale in data["attention"]),
            multipliers=dict(data["multipliers"]),
            branches=dict(data.get("branches", {})),
            notes=tuple(data.get("notes", ())),
            computed=tuple(_row(row) for row in data.get("computed", ())),
            folded=data["folded"],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, beside the checkpoint it belongs to."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            ValueError: the file is no plan; the message names it.
        """
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no plan that this version reads: {error}") from error


@cache
def _rule(rule: Rule, branch: Power, family: Family, folded: bool) -> Rule:
    """Thousands of tensors share a few rules, so each is worked out once."""
    if not folded:
        return Rule(multiplier=branch) * rule
    # A layer's own multiplier is in front of its weight, that of a branch behind it.
    whole = Rule(multiplier=branch) * rule.folded(family)
    return whole.shift(1 / branch, family, behind=True)


def weight_rule(parametrization: Parametrization, role: str, *, folded: bool) -> Rule:
    """Init std and multiplier of a role. They do not depend on the optimizer.

    Raises:
        KeyError: no column of the table has the role.
    """
    for wanted in (role, SPECIAL_CASE_OF.get(role)):
        for column, known in parametrization.rules:
            if known == wanted:
                rule = parametrization.rules[column, known]
                std = rule.init_std * rule.multiplier if folded else rule.init_std
                return Rule(init_std=std, multiplier=ONE if folded else rule.multiplier)
    raise KeyError(f"{parametrization.name} has no rule for role {role!r}")


def _row(data: Mapping[str, Any]) -> Row:
    row = dict(data)
    if row["base_init"] is not None:
        row["base_init"] = Init(**row["base_init"])
    if row.get("part") is not None:
        row["part"] = PartOf(**row["part"])
    tuples = [f.name for f in fields(Row) if isinstance(row.get(f.name), list)]
    return Row(**{**row, **{name: tuple(row[name]) for name in tuples}})
