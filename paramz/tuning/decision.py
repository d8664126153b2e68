"""The decision: what to train the target with, how sure that is, and by what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from paramz.tuning.forecast import Forecast
from paramz.tuning.model import Values

Outcome = Literal["ready", "careful", "stopped"]


@dataclass(frozen=True)
class Finding:
    """What one step found.

    Attributes:
        outcome: pass, fail or undecided; "none" where it could not be made.
        text: in words.
    """

    outcome: str
    text: str


@dataclass(frozen=True)
class Moved:
    """The values for the target's batch size and number of steps.

    Attributes:
        rule: the run rule; empty where the run is as long as those of the proxies.
        ratios: target over proxies, of batch size and steps.
        values: the base values for the target, lr among them: what the plan's rules multiply.
        measured: what shorter runs say of the rule, in words.
    """

    rule: str = ""
    ratios: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    measured: str = ""


@dataclass(frozen=True)
class Costs:
    """What tuning took and what the target takes, by the pilot's times.

    Attributes:
        tuning: what all trials took, in the unit of the budget.
        budget: what they might have.
        target: what one run of the target takes on the same machine.
        parameters: of the target; None where no task is at hand.
        tokens: of the target; None where their number per step is not known.
    """

    tuning: str
    budget: str
    target: str
    parameters: int | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class Decision:
    """What to train the target with.

    Attributes:
        target: the run that was decided.
        outcome: "ready"; "careful" where something in `doubts` should be known first; "stopped"
            where a step showed that no value can be given.
        hp: the hyperparameter.
        value: its value at the base for the target's run; None where stopped.
        lo: lower end of its 95 % interval.
        hi: upper end.
        proxies: the smaller models, and why these.
        coordinates: the coordinate check.
        transfer: whether the optimum stays over the proxies.
        moved: to the target's batch size and number of steps.
        groups: the values of every tensor of the target.
        factors: what else the plan changes.
        forecast: the loss.
        cost: of tuning and of the target.
        doubts: why it is not more sure.
        surer: what would make it surer.
        commands: what to run next, and what each is for.
    """

    target: str
    outcome: Outcome
    hp: str
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    proxies: tuple[str, ...] = ()
    coordinates: Finding | None = None
    transfer: Finding | None = None
    moved: Moved = Moved()
    groups: tuple[Values, ...] = ()
    factors: tuple[str, ...] = ()
    forecast: Forecast | None = None
    cost: Costs | None = None
    doubts: tuple[str, ...] = ()
    surer: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The decision as plain data; None for what is not finite."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
