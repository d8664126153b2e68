"""What one trial needs: amounts as a spec gives them, and as numbers for one config."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainSerializer,
    PositiveInt,
    ValidationError,
    model_validator,
)

from paramz.sweeps.spec.config import Config, leaves
from paramz.sweeps.spec.expression import Expression


def _expression(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Expression(repr(value))
    return Expression(value) if isinstance(value, str) else value


Positive = Annotated[FiniteFloat, Field(gt=0)]

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
    silent_minutes: Positive | None = None


class Need(BaseModel):
    """The resources of one trial, in numbers."""

    model_config = ConfigDict(frozen=True)
    cpus: PositiveInt
    gpus: Annotated[FiniteFloat, Field(ge=0)]
    nodes: PositiveInt
    memory_gb: Positive
    minutes: Positive | None

    @model_validator(mode="after")
    def _whole_gpus(self) -> Need:
        if self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError("a trial uses a fraction of one GPU or a whole number of GPUs")
        return self

    @property
    def processes(self) -> int:
        """Number of processes of the trial: one per GPU, and at least one per node."""
        return self.nodes * max(1, round(self.gpus))


class Needs:
    """The resources of configs, computed once for all configs that agree in the values used.

    Without this, a sweep of 100,000 trials would evaluate its expressions as many times.
    """

    def __init__(self, resources: Resources) -> None:
        self._amounts = {name: getattr(resources, name) for name in Need.model_fields}
        self._names = [n for amount in self._amounts.values() if amount for n in amount.names]
        self._known: dict[tuple[Any, ...], Need] = {}

    def of(self, config: Config) -> Need:
        """The resources of one config."""
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
