"""The spec of a sweep: the training function, its configs, the budget."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from paramz.sweeps.spec.axes import Axis, at_least, check_axes, check_base, expand, names_of
from paramz.sweeps.spec.command import Command, Metrics, Words
from paramz.sweeps.spec.command_check import check_command
from paramz.sweeps.spec.config import Config, config_key
from paramz.sweeps.spec.limits import Limits
from paramz.sweeps.spec.resources import Need, Needs, Positive, Resources
from paramz.sweeps.spec.searched import check_searched
from paramz.sweeps.spec.shard import Shard
from paramz.sweeps.spec.target import locate
from paramz.sweeps.spec.textfile import read_text
from paramz.sweeps.spec.unused import unused_cases
from paramz.sweeps.spec.values import write_values
from paramz.sweeps.spec.yamlfile import read_model

MOST_TRIALS = 2_000_000  # of a sweep; a mistyped product is refused before it fills the memory


class Budget(BaseModel):
    """What a sweep may use at most; a sweep that would need more is refused.

    Attributes:
        trials: number of trials.
        gpu_hours: hours of GPUs on Slurm, if every job runs up to its time limit.
        cpu_hours: the same for CPUs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    trials: PositiveInt | None = None
    gpu_hours: Positive | None = None
    cpu_hours: Positive | None = None


class Refine(BaseModel):
    """Trials that are added around the optimum of each setting, round by round.

    Attributes:
        axis: the config leaf that is refined, on a log2 scale.
        rounds: number of rounds after the trials of the spec.
        narrowest: distance in octaves between the optimum and its neighbours below which no more
            trials are added.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    axis: str = "lr"
    rounds: PositiveInt = 3
    narrowest: Positive = 0.25


class Halving(BaseModel):
    """Asynchronous successive halving (Optuna's ASHA): the worse trials of a group end early.

    Attributes:
        over: the config leaf in which the trials of a group differ, apart from the seed.
        min_steps: the step of the first cut.
        reduction: the best 1 / ``reduction`` of the trials continue at each cut, and each cut
            comes at ``reduction`` times the step of the one before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    over: str = "lr"
    min_steps: PositiveInt
    reduction: Annotated[int, Field(ge=2)] = 3


class Sweep(BaseModel):
    """A sweep: one training function, or one command, at every config in a product of axes.

    Attributes:
        train: ``file.py:function`` (relative to the spec's folder or the working directory) or
            ``module:function``.
        command: in place of ``train``, a command to run in the spec's folder: a list of words, or a
            line. ``{lr}`` stands for a value of the config, ``{trial.directory}`` for the trial's
            own folder. ``python`` is the interpreter that runs paramz.
        resume: words that are added to the command when a trial goes on after an interruption and
            the files in its folder that they name exist.
        metrics: where the command leaves its metrics.
        cwd: the folder that the command runs in, relative to the spec's; by default that.
        base: config values that all trials share.
        axes: the values that vary; `paramz.sweeps.spec.axes` lists the forms.
        resources: what one trial needs.
        budget: what the whole sweep may use.
        loss_limit: a trial whose loss exceeds this is stopped and recorded as diverged.
        refine: rounds of trials that are added around the optima found so far.
        halving: trials that fall behind others are stopped early, and then have no loss.

    >>> sweep = Sweep(train="lab:train", axes={"width": [64, 128], "lr": {"log2": [-2, -1]}})
    >>> list(sweep.configs())[:2]
    [{'width': 64, 'lr': 0.25}, {'width': 64, 'lr': 0.5}]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    train: str | None = None
    command: Words | None = None
    resume: Words = ()
    metrics: Metrics | None = None
    cwd: str | None = None
    base: dict[str, JsonValue] = {}
    axes: dict[str, Axis] = {}
    resources: Resources = Resources()
    budget: Budget = Budget()
    loss_limit: FiniteFloat | None = None
    refine: Refine | None = None
    halving: Halving | None = None
    _text: str | None = PrivateAttr(default=None)
    _shard: Shard | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("base")
    @classmethod
    def _finite(cls, base: dict[str, JsonValue]) -> dict[str, JsonValue]:
        check_base(base)
        return base

    @field_validator("axes")
    @classmethod
    def _consistent(cls, axes: dict[str, Any], info: Any) -> dict[str, Any]:
        check_axes(axes, base := info.data.get("base", {}))
        for sentence in unused_cases(axes, base):
            warnings.warn(sentence, stacklevel=1)  # inside of pydantic
        return axes

    @field_validator("train")
    @classmethod
    def _found(cls, train: str | None, info: Any) -> str | None:
        return train and locate(train, _folder_of(info))

    @model_validator(mode="after")
    def _one_target(self, info: Any) -> Sweep:
        if (self.train is None) == (self.command is None):
            raise ValueError(
                "give train (file.py:function) or command (such as [python, train.py, --lr, "
                '"{lr}"])' + (", not both" if self.train else "")
            )
        if self.command is None:
            if unused := [name for name in ("resume", "metrics", "cwd") if getattr(self, name)]:
                raise ValueError(f"{unused[0]} is for a command; a function logs with trial.log")
            return self
        if self.metrics is None:
            raise ValueError(
                "metrics is missing: where does the command leave its loss? Such as {file: "
                '"{trial.directory}/log.csv", loss: val_loss} or {pattern: "loss (?P<loss>\\S+)"}'
            )
        self._folder = _folder_of(info).absolute()
        axes = [(names_of(title), at_least({title: axis}) > 1) for title, axis in self.axes.items()]
        check_command(self.as_command, next(self.configs()), axes)
        return self

    @model_validator(mode="after")
    def _bounded(self) -> Sweep:
        """Refuse what could only be found to be wrong after hours: an axis that no config has."""
        if (count := at_least(self.axes)) > MOST_TRIALS:
            raise ValueError(f"the axes make {count:,} trials; at most {MOST_TRIALS:,} are allowed")
        names = [name for title in self.axes for name in names_of(title)]
        refined = self.refine.axis if self.refine else None
        halved = self.halving.over if self.halving else None
        check_searched(names, refined, halved, self.configs())
        return self

    @model_validator(mode="after")
    def _computable(self) -> Sweep:
        """Compute the resources of the first config, so that a typo shows before anything runs."""
        try:
            self.need(next(self.configs()))
        except ValueError as error:
            raise ValueError(f"resources: {error}") from None
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, folder: Path | None = None) -> Sweep:
        """Read a spec from a YAML file.

        Args:
            path: the file.
            folder: where the file of the training function is looked up first, before the working
                directory; by default the folder of the spec.

        Raises:
            paramz.sweeps.spec.yamlfile.SpecError: the file is not a valid spec. The message gives
                file and line of every mistake, and what would be right.
        """
        path = Path(path)
        sweep = read_model(path, cls, context={"folder": folder or path.parent})
        sweep._text = read_text(path)
        sweep._folder = (folder or path.parent).absolute()
        return sweep

    def to_yaml(self) -> str:
        """The spec as YAML; word for word the file that it was read from, if there is one."""
        return self._text or write_values(self.model_dump(exclude_defaults=True))

    @property
    def target(self) -> str:
        """The name of what each trial runs, under which stores and jobs know it."""
        return self.train or self.as_command.name

    @property
    def as_command(self) -> Command:
        """The command with all that belongs to it.

        Raises:
            ValueError: the sweep is of a training function.
        """
        if self.command is None or self.metrics is None:
            raise ValueError(f"this sweep has no command, it trains {self.train}")
        return Command(
            words=self.command,
            resume=self.resume,
            metrics=self.metrics,
            folder=str((self._folder / self.cwd).resolve() if self.cwd else self._folder),
        )

    def configs(self) -> Iterator[Config]:
        """Every config of the sweep, the last axis fastest; equal ones are not removed."""
        return expand(self.base, self.axes)

    @property
    def limits(self) -> Limits:
        """When a running trial is stopped early because of its loss."""
        return Limits(self.loss_limit, self.halving.model_dump() if self.halving else None)

    @property
    def folder(self) -> Path:
        """The folder of the spec; for one made in Python, the working directory at that time."""
        return self._folder

    @cached_property
    def trials(self) -> dict[str, Config]:
        """Every distinct config under its key, in order."""
        found: dict[str, Config] = {}
        for config in self.configs():
            found[config_key(config)] = config
            if len(found) > MOST_TRIALS:
                raise ValueError(f"the axes make more than {MOST_TRIALS:,} trials")
        return self._shard.part(found) if self._shard else found

    @property
    def shard(self) -> Shard | None:
        """The share of the whole sweep that this is; None if it is the whole."""
        return self._shard

    def share(self, shard: Shard) -> Sweep:
        """One share of the sweep: the trials that belong to it, and no rounds of refinement."""
        part = self.model_copy(update={"refine": None})
        part.__dict__.pop("trials", None)
        part._shard = shard
        return part

    def exceeds(self, most: int) -> int | None:
        """How many trials there are if that is more than `most`, else None.

        It is found at once, however many trials there are. If axes depend on others, the number
        may be too small, but not below `most`.
        """
        if (count := at_least(self.axes)) <= most:
            found: set[str] = set()
            for config in self.configs():
                found.add(config_key(config))
                if len(found) > most:
                    break
            count = len(found)
        return count if count > most else None

    def need(self, config: Config) -> Need:
        """The resources of one trial, in numbers.

        Raises:
            ValueError: an amount cannot be computed for this config, or is out of range.
        """
        return self._needs.of(config)

    @cached_property
    def _needs(self) -> Needs:
        return Needs(self.resources)


def _folder_of(info: Any) -> Path:
    """Where relative paths of a spec are looked up."""
    return Path((info.context or {}).get("folder", Path.cwd()))
