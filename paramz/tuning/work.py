"""What the steps of a tuning know: the question in terms of the source's config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from paramz.sweeps.spec.spec import Sweep
from paramz.theory.families import family
from paramz.theory.horizon import run_rules
from paramz.theory.tables import parametrization
from paramz.tuning.model import task_of, tokens_in
from paramz.tuning.proxies import Wanted, possible_widths
from paramz.tuning.question import Budget, Target, tokens_per_step
from paramz.tuning.specs import Setting
from paramz.tuning.stage import Stages

if TYPE_CHECKING:
    from paramz.apply.task import Task

_FEWEST_BLOCKS = 2


@dataclass(frozen=True)
class Work:
    """The question in terms of the source's config.

    Attributes:
        target: the run to decide.
        budget: what may be spent.
        setting: what the specs of all steps share.
        stages: where the steps are.
        rule: the run rule that was asked for; None for the usual one.
    """

    target: Target
    budget: Budget
    setting: Setting
    stages: Stages
    rule: str | None

    @property
    def config(self) -> Mapping[str, Any]:
        """The values that all trials have."""
        return self.setting.config

    @property
    def task_name(self) -> str | None:
        """The function that gives the model; None where there is none."""
        return self.setting.source.task

    @cached_property
    def task(self) -> Task | None:
        """The task of the config; None where there is none."""
        return None if self.task_name is None else task_of(self.task_name, self.config)

    @property
    def scheme(self) -> str:
        """The parametrization that the trials are trained under."""
        return str(self.config.get("parametrization", "mup"))

    @property
    def optimizer(self) -> str:
        """The name of their optimizer."""
        return str(self.config.get("optimizer", "adamw"))

    @property
    def run_rule(self) -> str:
        """The rule by which lr moves with tokens and, where that changes, with batch size.

        What was asked for, and usual rules for what it leaves open.

        Raises:
            ValueError: as for `batch_ratio`.
        """
        adam = family(self.optimizer).column == "adam"
        usual = {"tokens": "token-horizon" if adam else "constant"}
        if self.batch_ratio != 1:
            usual = {"batch": "sde", **usual}
        asked = [] if self.rule is None else [self.rule]
        known = {what for rule in asked for one in run_rules(rule) for what in one.moves}
        return "+".join([*asked, *(rule for what, rule in usual.items() if what not in known)])

    @property
    def batch_ratio(self) -> float:
        """The target's batch size over that of the proxies.

        Raises:
            ValueError: the target has a batch size, and that of the proxies is not known.
        """
        own = self.config.get(self.setting.batch)
        if self.target.batch_size is None:
            return 1.0
        if own is None:
            raise ValueError(
                f"the target's batch size is {self.target.batch_size}; that of the proxies is not "
                f"known: give --set {self.setting.batch}={self.target.batch_size} to train them "
                "with the same, or the one that they have"
            )
        return float(self.target.batch_size / own)

    @cached_property
    def tokens_each_step(self) -> float | None:
        """Tokens of a step of the proxies; None where that is not known."""
        seen = None if self.task is None else tokens_in(self.task)
        batch = {"batch_size": self.config.get(self.setting.batch)}
        return tokens_per_step({**self.config, **batch}, seen)[0]

    @cached_property
    def steps(self) -> int | None:
        """The target's number of steps; None where it cannot be set.

        Raises:
            ValueError: it follows from tokens, but not how; or the source does not take it.
        """
        name, target = self.setting.steps, self.target
        asked = target.steps
        if target.tokens is not None:
            if self.tokens_each_step is None:
                raise ValueError(
                    f"tokens={target.tokens:g} are how many steps? Give the tokens of an example "
                    "and the batch size, as in --set context=1024 --set batch_size=64, or steps in "
                    "place of tokens"
                )
            asked = max(1, round(target.tokens / (self.tokens_each_step * self.batch_ratio)))
        if not self.setting.source.reached(name):
            if asked is not None:
                raise ValueError(
                    f"the target has a number of steps, which does not reach the command: add an "
                    f'argument such as --steps "{{{name}}}" to it'
                )
            return None
        known = self.config.get(name)
        return asked if asked is not None else int(known) if known is not None else None

    @property
    def depth_grows(self) -> bool:
        """Whether proxies are shallower than the target."""
        return self.target.depth is not None and "depth" in parametrization(self.scheme).scales

    def depth_of(self, width: int) -> int | None:
        """The depth of the proxy of a width; None where depth is not set apart from the config.

        Under a scheme with a rule for depth, proxies keep the target's shape. Without one the best
        learning rate moves with depth, so that all have the target's, by the config.
        """
        if self.target.depth is None or not self.depth_grows:
            return None
        return max(_FEWEST_BLOCKS, round(self.target.depth * width / self.target.width))

    @cached_property
    def wanted(self) -> Wanted:
        """What proxies are chosen from.

        Raises:
            ValueError: the source's own axes cannot be used, or the target is too small.
        """
        axes = dict(self.setting.source.axes)
        own = axes.pop("width", None)
        seeds, grid = axes.pop("seed", None), axes.pop(self.setting.hp, None)
        if axes:
            raise ValueError(
                f"the spec has the axes {', '.join(axes)}, which paramz tune does not choose "
                f"between; it knows width, seed and {self.setting.hp}: put one value of each into "
                "base, or sweep them with paramz sweep"
            )
        if own is not None and not (isinstance(own, list) and len(set(own)) > 2):
            raise ValueError(
                f"axes: width: {own}: give a list of three widths or more, or leave width out of "
                "the spec's axes, and the widths are chosen"
            )
        widths = tuple(sorted(set(own))) if own else self._buildable()
        points = None
        if grid is not None:
            hp = self.setting.hp
            points = len(list(Sweep(train="given:here", axes={hp: grid}).configs()))
        number = None if seeds is None else len(seeds)
        if not self.setting.seeds:
            number = 1
        return Wanted(widths, self.depth_of, self.steps, widths if own else (), number, points)

    def _buildable(self) -> tuple[int, ...]:
        """Possible widths without those that the task cannot build, such as with odd heads."""
        widths = possible_widths(self.target.width)
        if self.task is None:
            return widths
        import torch

        good = []
        for width in widths:
            rest = {} if not self.depth_grows else {"depth": self.depth_of(width)}
            try:
                with torch.device("meta"):
                    self.task.build(width, **rest)
            except Exception as error:
                self.stages.say(f"width {width} is left out: the task cannot build it ({error})")
            else:
                good.append(width)
        return tuple(good)

    def trial_seconds(self, sweep: Sweep, workers: int | None) -> float:
        """How many seconds of trials, one after the other, the budget pays for."""
        need = sweep.need(next(sweep.configs()))
        at_once = workers or max(1, len(os.sched_getaffinity(0)) // need.cpus)
        return self.budget.trial_seconds(need.cpus * need.nodes, need.gpus * need.nodes, at_once)

    def spent(self, seconds: float, trials: float) -> float:
        """Seconds of trials in the unit of the budget, of which the whole pays for `trials`."""
        return seconds * self.budget.seconds / trials
