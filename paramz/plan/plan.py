"""The plan: one row per tensor, keyed by name. Pure data, and the only state that paramz keeps.

It hangs on nothing: deepcopy, pickle, state_dict, meta -> to_empty, compile, export, DDP and FSDP
leave it valid, because the model is only ever matched to it by parameter names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paramz.plan.constructed import problems
from paramz.plan.export.export import Export
from paramz.plan.export.frameworks import Source, exported
from paramz.plan.groups import HIDDEN_ROLES, Group, make_groups, refuse_misplaced, split_tensors
from paramz.plan.lost_factors import Changes, lost_factors, require_factors
from paramz.plan.matching import trainable_rows
from paramz.plan.row import ModuleScale, Row
from paramz.plan.rulebook import Rulebook
from paramz.plan.saved import loads, read_fields
from paramz.plan.settings import Settings, settings_of_two
from paramz.plan.summary import Summary, changes_of, summarize
from paramz.theory.families import Family
from paramz.theory.rules import Parametrization, Rule

FORMAT = 1


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """What a parametrization means for one model.

    Attributes:
        parametrization: the table in use.
        rows: one per parameter, in the order of ``named_parameters()``.
        attention: factors in modules' own code that change: on attention logits, on embeddings.
        multipliers: module path -> factor on its input (on its output for an embedding).
        branches: module path -> factor on its output, for ends of residual branches that have no
            weights to fold it into (or all of them, if not folded).
        behind: readout -> the part of its multiplier that makes up for a factor behind it in
            forward code, so that its own output has that part more.
        notes: what a reader of the plan should know, one sentence each.
        folded: multipliers are folded into init, lr, eps and decay wherever possible.
        computed: rows of weights that a reparametrization computes from other tensors, whose rows
            are among the others.
    """

    parametrization: Parametrization
    rows: tuple[Row, ...]
    attention: tuple[ModuleScale, ...] = ()
    multipliers: Mapping[str, float] = field(default_factory=dict)
    branches: Mapping[str, float] = field(default_factory=dict)
    behind: Mapping[str, float] = field(default_factory=dict)
    folded: bool = True
    notes: tuple[str, ...] = ()
    computed: tuple[Row, ...] = ()

    def __repr__(self) -> str:
        name, tensors = self.parametrization.name, len(self.rows)
        return f"<Plan {name}, {tensors} tensors: print(plan.summary())>"

    @property
    def rulebook(self) -> Rulebook:
        """The parametrization's rules in the form that this plan applies them in."""
        return Rulebook(self.parametrization, self.folded)

    def rule(self, row: Row, family: Family) -> Rule:
        """The rule of a row for an optimizer family, with the multiplier folded if the plan does.

        Raises:
            KeyError: the table has no rule for this family and role.
        """
        return self.rulebook.rule(row, family)

    def init_std(self, row: Row) -> float | None:
        """The std that the row's init has under the plan; None before it was measured."""
        return self.rulebook.init_std(row)

    def param_groups(
        self, model: nn.Module, optimizer: Any, *, lr: float, **settings: Any
    ) -> list[Group]:
        """Plain parameter groups for any torch optimizer, with the plan's lr, eps and decay.

        Tensors with equal hyperparameters share a group, so there are few. Ratios between groups
        survive schedulers that multiply; give OneCycleLR ``max_lr=[g["lr"] for g in groups]``.

        Args:
            model: the model (DDP, FSDP and compile wrappers may be around it by now).
            optimizer: name, class or instance, such as ``"adamw"`` or ``torch.optim.AdamW``.
            lr: learning rate at the base.
            **settings: what else is meant at the base, all of it optional:

                ``weight_decay``: the optimizer's own default if left out (u-muP: 0).

                ``eps``: the optimizer's own default if left out.

                ``damping``: of K-FAC and FOOF; the optimizer's own default if left out. Groups
                get it as ``damping`` for damping that is relative to a factor's trace, and times
                the plan's rules as ``damping_a`` and ``damping_b`` for constants on the factors of
                inputs and output gradients.

                ``decay``: what weight_decay means and how it moves: ``"lr-constant"`` (the default;
                u-muP's is ``"independent"``), ``"coupled"``, ``"independent"``,
                ``"1/width"`` or ``"sqrt-width"``, with their sources in `paramz.DECAYS`.

                ``no_decay``: roles without decay, such as ``("vector", "scalar")``.

                ``role_lr``: base learning rates of roles that are tuned apart from ``lr``, such as
                ``{"input": 2**-4}``; the same rules take them to the target.

                ``split``: ``"shape"`` for groups of tensors of one shape each, which optimizers
                need that stack their tensors; ``"tensor"`` for one group per tensor.

                Any option of the optimizer, passed to every group (betas, momentum, ...).
                Shampoo's ``exponent``, of each side or of the left and right one, chooses its
                rules.

        Raises:
            TypeError: a setting that neither paramz nor the optimizer has.
            ValueError: the model has trainable tensors that the plan does not know or lacks some
                that it does, or modules without the plan's factors in place of those that had them;
                the optimizer is unknown, an option is out of range, or a readout is all zero and
                the optimizer is K-FAC.
            KeyError: the table has no rule for this optimizer and a tensor's role.
        """
        asked = Settings.of(optimizer, lr=lr, **settings)
        return make_groups(self.rulebook, self._tensors_of(model), asked)

    def split_groups(
        self,
        model: nn.Module,
        *,
        roles: tuple[str, ...] = HIDDEN_ROLES,
        **optimizers: Mapping[str, Any],
    ) -> list[list[Group]]:
        """Groups for two optimizers: the first takes hidden matrices, the second all the rest.

        Kernels of convolutions count as matrices, but not for Muon.

        Args:
            model: the model.
            roles: the first optimizer takes the matrices of these roles.
            **optimizers: the options of each, as for `param_groups`, and ``optimizer`` for the
                class where it is not torch's own, as in ``muon=dict(optimizer=timm.optim.Muon,
                lr=0.02)``.

        >>> import paramz, torch
        >>> net = lambda w=8: torch.nn.Sequential(
        ...     torch.nn.Linear(4, w), torch.nn.Linear(w, w), torch.nn.Linear(w, 2))
        >>> model = net(32)
        >>> plan = paramz.parametrize_(model, "mup", base=net)
        >>> hidden, rest = plan.split_groups(model, muon=dict(lr=0.02), adamw=dict(lr=3e-3))
        >>> len(hidden), hidden[0]["lr"]
        (1, 0.02)

        Raises:
            ValueError: not exactly two optimizers, no such role, the rate of a role that the other
                optimizer trains, or as for `param_groups`.
            TypeError: as for `param_groups`.
        """
        first, second = settings_of_two(optimizers)
        matrices, rest = split_tensors(self._tensors_of(model), roles, first.family)
        parts = ((matrices, first), (rest, second))
        refuse_misplaced(parts)
        return [make_groups(self.rulebook, tensors, asked) for tensors, asked in parts]

    def check(
        self,
        *optimizers: torch.optim.Optimizer | Any,
        model: nn.Module | None = None,
        schedulers: Sequence[Any] | Any = (),
    ) -> None:
        """Raise if constructed optimizers do not train what the plan says, at its rates.

        It finds groups that no plan made (``AdamW(model.parameters())``), tensors that are lost, or
        trained twice, or no longer the model's, changed ratios of learning rates, epsilons or
        decays, groups of another plan or optimizer, and one that puts another factor on its steps
        than the groups count on (Muon's ``adjust_lr_fn``); with ``model`` also a plan's factors
        that are not on it. It warns of classes that nobody knows.

        Args:
            *optimizers: all that train the model.
            model: the model, wrapped or not; without it frozen tensors count as lost.
            schedulers: one or more, run on copies, as `paramz.check_schedule` does.

        Raises:
            ValueError: something is not as the plan has it; the message lists all of it.

        >>> import paramz, torch
        >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
        >>> model = net(32)
        >>> plan = paramz.parametrize_(model, "mup", base=net)
        >>> plan.check(torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1)))
        >>> plan.check(torch.optim.AdamW(model.parameters()))
        Traceback (most recent call last):
        ...
        ValueError: AdamW has a group of 4 tensors that no plan made, all at lr 0.001...
        """
        found = list(problems(self.rulebook, self.rows, optimizers, model, schedulers))
        if model is not None and (lost := lost_factors(self._changes, model)):
            found.append(lost)
        if found:
            raise ValueError("\n".join(found))

    @property
    def _changes(self) -> Changes:
        return self.attention, self.multipliers, self.branches

    def _tensors_of(self, model: nn.Module) -> list[tuple[Row, nn.Parameter]]:
        tensors = trainable_rows(self.rows, model)
        require_factors(self._changes, model)
        return tensors

    def export(
        self,
        framework: str,
        optimizer: Any = None,
        *,
        names: Sequence[tuple[str, str]] = (),
        **settings: Any,
    ) -> Export:
        r"""The plan in a framework's settings; ``missing`` and the text list what these lack.

        Args:
            framework: megatron, torchtitan, olmo-core, nanochat, deepspeed or trainer.
            optimizer: as for `param_groups`; None for two, as for `split_groups`.
            names: patterns and replacements for ``re.sub``, in order, from the plan's names to the
                framework's. Tensors that get one name (q, k and v) must have the same values.
            **settings: as for `param_groups`, or ``muon=dict(...), adamw=dict(...)``.

        Raises:
            ValueError: framework or optimizer unknown, a pattern that finds nothing, or one name
                with two values.
            TypeError: as for `param_groups`.
            KeyError: as for `param_groups`.

        >>> import paramz, torch
        >>> net = lambda w=8: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2))
        >>> plan = paramz.parametrize_(net(32), "mup", base=net)
        >>> [g.patterns[0] for g in plan.export("trainer", "adamw", lr=0.5).groups]
        ['0\\.(?:weight|bias)', '1\\.weight', '1\\.bias']
        """
        two = optimizer is None
        asked = settings_of_two(settings) if two else (Settings.of(optimizer, **settings),)
        changes = (*self._changes, self.computed)
        return exported(framework, Source(self.rulebook, self.rows, *changes), asked, names)

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
        said = changes_of(*self._changes)
        asked = (optimizer, exponent)
        return summarize(self.rulebook, self.rows, asked, said, full=full).noted(self.notes)

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
            "behind": dict(self.behind),
            "notes": list(self.notes),
            "computed": [asdict(row) for row in self.computed],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`.

        Raises:
            ValueError: the data is of another format, or a number in it is NaN, infinite or out
                of its range.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"plan format {data.get('format')!r}, this version reads {FORMAT}")
        return cls(**read_fields(data))

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
            return cls.from_json(loads(Path(path).read_text(encoding="utf-8")))
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{path} is no plan that this version reads: {error}") from error
