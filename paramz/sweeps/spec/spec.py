"""The sweep spec: which function is trained at which configs, with what, and how much of it."""

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

from paramz.sweeps.running.trial import Rules
from paramz.sweeps.spec.axes import Axis, check_axes, expand
from paramz.sweeps.spec.config import Config, canonical, config_key, leaves
from paramz.sweeps.spec.expression import Expression
from paramz.sweeps.spec.target import locate
from paramz.sweeps.spec.yamlfile import read_model


def _expression(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Expression(repr(value))
    return Expression(value) if isinstance(value, str) else value


Amount = Annotated[
    Expression, BeforeValidator(_expression), PlainSerializer(lambda amount: amount.text)
]
"""A number, or arithmetic over the config such as `2 + 30 * (width / 1024) ** 2`."""


class Resources(BaseModel):
    """What one trial needs; each amount is a number or arithmetic over the config.

    Attributes:
        cpus: Threads of a trial.
        gpus: GPUs of a trial on each node: 0.25 puts four trials on a GPU; above 1 the trial runs
            as one process per GPU.
        nodes: Nodes of a trial; above 1 likewise.
        memory_gb: Memory of a trial on each node, GB.
        minutes: Time limit of a trial; beyond it the trial is killed and recorded as failed.
            None: no limit; Slurm asks for one.
        silent_minutes: A trial that has logged nothing for so long is taken to hang: it is killed
            and recorded as failed. None: it may be silent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    cpus: Amount = Expression("1")
    gpus: Amount = Expression("0")
    nodes: Amount = Expression("1")
    memory_gb: Amount = Expression("2")
    minutes: Amount | None = None
    silent_minutes: PositiveFloat | None = None


class Budget(BaseModel):
    """What a sweep may use at most; a plan beyond it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    trials: PositiveInt | None = None
    gpu_hours: PositiveFloat | None = None
    cpu_hours: PositiveFloat | None = None


class Refine(BaseModel):
    """Trials added around the optimum of each setting, round by round.

    Attributes:
        axis: The config leaf that is refined, on a log2 scale.
        rounds: Rounds after the trials of the spec.
        narrowest: Octaves between the optimum and its neighbours at which it is good enough.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    axis: str = "lr"
    rounds: PositiveInt = 3
    narrowest: PositiveFloat = 0.25


class Halving(BaseModel):
    """Trials that fall behind others of their group are stopped early (ASHA, through Optuna).

    Attributes:
        over: The config leaf that the trials of a group differ in, beside the seed.
        min_steps: The step of the first cut.
        reduction: One of so many goes on at each cut, each that many times later than the last.
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
    def _whole_gpus(self) -> "Need":
        if self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError("above 1 only whole GPUs can be had")
        return self

    @property
    def processes(self) -> int:
        """Processes of one trial: one per GPU, and at least one per node."""
        return self.nodes * max(1, round(self.gpus))


class Sweep(BaseModel):
    """A sweep: a training function over a product of axes.

    Attributes:
        train: `file.py:function` (relative to the spec's folder or the working directory) or
            `module:function`.
        base: Config values that every trial shares.
        axes: What varies; see `paramz.sweeps.spec.axes` for the forms.
        resources: What one trial needs.
        budget: What the sweep may use.
        loss_limit: A trial whose loss exceeds this is stopped and recorded as diverged.
        refine: Trials to add around the optima that the first ones find.
        halving: Trials that fall behind are stopped early; they have no loss.

    Example:
        >>> sweep = Sweep(train="lab:train", axes={"width": [64, 128], "lr": {"log2": [-2, -1]}})
        >>> [config for config in sweep.configs()][:2]
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
    def _computable(self) -> "Sweep":
        """Resources are tried on the first config, so that a typo shows before anything runs."""
        try:
            self.need(next(self.configs()))
        except ValueError as error:
            raise ValueError(f"resources: {error}") from None
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, folder: Path | None = None) -> "Sweep":
        """Read a spec.

        Args:
            path: The file.
            folder: What a relative path of the training function is relative to, before the
                working directory; by default the file's own folder.

        Raises:
            paramz.sweeps.spec.yamlfile.SpecError: With file, line and cure of every mistake.
        """
        path = Path(path)
        sweep = read_model(path, cls, context={"folder": folder or path.parent})
        sweep._text = path.read_text(encoding="utf-8")
        sweep._folder = (folder or path.parent).absolute()
        return sweep

    def to_yaml(self) -> str:
        """The text of the spec: that of its file if it has one."""
        return self._text or yaml.safe_dump(self.model_dump(exclude_defaults=True), sort_keys=False)

    def configs(self) -> Iterator[Config]:
        """Every config of the sweep, the last axis fastest; repeated ones appear once more."""
        return expand(self.base, self.axes)

    @property
    def rules(self) -> Rules:
        """When a trial is ended before its time."""
        return Rules(self.loss_limit, self.halving.model_dump() if self.halving else None)

    @property
    def folder(self) -> Path:
        """Where the spec was read, or written down in Python."""
        return self._folder

    @cached_property
    def trials(self) -> dict[str, Config]:
        """Every distinct config under its key, in order."""
        return {config_key(config): config for config in self.configs()}

    @cached_property
    def need(self) -> "Needs":
        """The resources of a trial, called with its config."""
        return Needs(self.resources)


class Needs:
    """Computes resources of configs; those that agree in what the amounts use are looked up."""

    def __init__(self, resources: Resources) -> None:
        self.amounts = {name: getattr(resources, name) for name in Need.model_fields}
        self.names = [n for amount in self.amounts.values() if amount for n in amount.names]
        self.known: dict[tuple[Any, ...], Need] = {}

    def __call__(self, config: Config) -> Need:
        """The resources of one trial.

        Raises:
            ValueError: If an amount cannot be computed or is not positive.
        """
        flat = leaves(config) if self.names else config
        used = tuple([flat.get(name) for name in self.names])
        if used not in self.known:
            self.known[used] = _need(self.amounts, leaves(config))
        return self.known[used]


def _need(amounts: dict[str, Expression | None], flat: Config) -> Need:
    values = {name: amount and amount(flat) for name, amount in amounts.items()}
    try:
        return Need.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "gpus"
        text = getattr(amounts[name], "text", "")
        raise ValueError(f"{name}: {text!r} comes to {values[name]:g}: {first['msg']}") from None
