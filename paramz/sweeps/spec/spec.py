"""The spec of a sweep: the training function, its configs, the resources of a trial, the budget."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from paramz.sweeps.spec.axes import Axis, check_axes, expand
from paramz.sweeps.spec.config import Config, canonical, config_key, leaves
from paramz.sweeps.spec.expression import Expression
from paramz.sweeps.spec.limits import Limits
from paramz.sweeps.spec.target import locate
from paramz.sweeps.spec.yamlfile import read_model


def _expression(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Expression(repr(value))
    return Expression(value) if isinstance(value, str) else value


Amount = Annotated[
    Expression, BeforeValidator(_expression), PlainSerializer(lambda amount: amount.text)
]
"""A number, or arithmetic over the config such as ``2 + 30 * (width / 1024) ** 2``."""


class Resources(BaseModel):
    """What one trial needs; each amount is a number or arithmetic over the config.

    Attributes:
        cpus: threads of a trial.
        gpus: GPUs of a trial on each node. With 0.25 four trials share a GPU; above 1 the trial
            runs as one process per GPU.
        nodes: nodes of a trial; above 1 the trial runs as at least one process per node.
        memory_gb: memory of a trial on each node, in GB.
        minutes: time limit of a trial, after which it is killed and recorded as failed. None sets
            no limit, which Slurm does not accept.
        silent_minutes: a trial that has logged nothing for so many minutes is killed and recorded
            as failed, because it probably hangs. None lets a trial be silent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    cpus: Amount = Expression("1")
    gpus: Amount = Expression("0")
    nodes: Amount = Expression("1")
    memory_gb: Amount = Expression("2")
    minutes: Amount | None = None
    silent_minutes: PositiveFloat | None = None


class Budget(BaseModel):
    """What a sweep may use at most; a sweep that would need more is refused.

    Attributes:
        trials: number of trials.
        gpu_hours: hours of GPUs on Slurm, if every job runs up to its time limit.
        cpu_hours: the same for CPUs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    trials: PositiveInt | None = None
    gpu_hours: PositiveFloat | None = None
    cpu_hours: PositiveFloat | None = None


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
    narrowest: PositiveFloat = 0.25


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


class Need(BaseModel):
    """The resources of one trial, in numbers."""

    model_config = ConfigDict(frozen=True)
    cpus: PositiveInt
    gpus: Annotated[float, Field(ge=0)]
    nodes: PositiveInt
    memory_gb: PositiveFloat
    minutes: PositiveFloat | None

    @model_validator(mode="after")
    def _whole_gpus(self) -> Need:
        if self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError("a trial uses a fraction of one GPU or a whole number of GPUs")
        return self

    @property
    def processes(self) -> int:
        """Number of processes of the trial: one per GPU, and at least one per node."""
        return self.nodes * max(1, round(self.gpus))


class Sweep(BaseModel):
    """A sweep: one training function at every config in a product of axes.

    Attributes:
        train: ``file.py:function`` (relative to the spec's folder or the working directory) or
            ``module:function``.
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
    train: str
    base: dict[str, JsonValue] = {}
    axes: dict[str, Axis] = {}
    resources: Resources = Resources()
    budget: Budget = Budget()
    loss_limit: float | None = None
    refine: Refine | None = None
    halving: Halving | None = None
    _text: str | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("base")
    @classmethod
    def _finite(cls, base: dict[str, JsonValue]) -> dict[str, JsonValue]:
        canonical(base)
        return base

    @field_validator("axes")
    @classmethod
    def _consistent(cls, axes: dict[str, Any], info: Any) -> dict[str, Any]:
        check_axes(axes, info.data.get("base", {}))
        return axes

    @field_validator("train")
    @classmethod
    def _found(cls, train: str, info: Any) -> str:
        return locate(train, (info.context or {}).get("folder", Path.cwd()))

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
        sweep._text = path.read_text(encoding="utf-8")
        sweep._folder = (folder or path.parent).absolute()
        return sweep

    def to_yaml(self) -> str:
        """The spec as YAML; word for word the file that it was read from, if there is one."""
        return self._text or yaml.safe_dump(self.model_dump(exclude_defaults=True), sort_keys=False)

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
        return {config_key(config): config for config in self.configs()}

    def need(self, config: Config) -> Need:
        """The resources of one trial, in numbers.

        Raises:
            ValueError: an amount cannot be computed for this config, or is out of range.
        """
        return self._needs.of(config)

    @cached_property
    def _needs(self) -> _Needs:
        return _Needs(self.resources)


class _Needs:
    """The resources of configs, computed once for all configs that agree in the values used.

    Without this, a sweep of 100,000 trials would evaluate its expressions as many times.
    """

    def __init__(self, resources: Resources) -> None:
        self._amounts = {name: getattr(resources, name) for name in Need.model_fields}
        self._names = [n for amount in self._amounts.values() if amount for n in amount.names]
        self._known: dict[tuple[Any, ...], Need] = {}

    def of(self, config: Config) -> Need:
        flat = leaves(config) if self._names else config
        used = tuple([flat.get(name) for name in self._names])
        if used not in self._known:
            self._known[used] = _evaluated(self._amounts, leaves(config))
        return self._known[used]


def _evaluated(amounts: dict[str, Expression | None], flat: Config) -> Need:
    values = {name: amount and amount(flat) for name, amount in amounts.items()}
    try:
        return Need.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "gpus"
        text = getattr(amounts[name], "text", "")
        raise ValueError(f"{name}: {text!r} comes to {values[name]:g}: {first['msg']}") from None
