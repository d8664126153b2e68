"""The jobs that a coordinate check consists of, and the table of what they measure.

Imports no torch: a machine that only hands the jobs to others need not be able to run them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from paramz.apply.task import Task
    from paramz.theory.rules import Parametrization

MakesOptimizers = Callable[..., Any]
"""``(plan, model) -> optimizer`` or several; one that takes ``lr`` is given the base rate."""

# Of the table, after the scale that was varied.
COLUMNS = (
    "seed",
    "lr",
    "step",
    "module",
    "role",
    "quantity",
    "rms",
    "last",
)

MODEL = "(model)"
"""What stands for the whole model in the column module; no path looks like it."""

LOGITS = "logits"
"""The role of what a softmax module takes, where operations made it: logits of attention."""

Rows = list[tuple[Any, ...]]
"""Parametrization, optimizer, the scale, and `COLUMNS`."""


@dataclass(frozen=True, kw_only=True)
class CheckJob:
    """One model of the check: everything that a worker process needs, picklable.

    Attributes:
        task: the task, or the name of a function that returns it.
        config: passed to that function.
        parametrization, optimizer, options, lrs, steps: as of the `Check`.
        axis: the scale that is varied: width, depth, experts, rank or density.
        base: its value at the base.
        scale: its value in this model.
        width: of all models, where the axis is another.
        seed: of the model's initial values.
    """

    task: Task | str
    config: Mapping[str, Any]
    parametrization: str | Parametrization
    optimizer: str | type | MakesOptimizers
    options: Mapping[str, Any]
    lrs: tuple[float, ...]
    steps: int
    axis: str
    base: float
    scale: float
    width: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a coordinate check varies, and how it trains; see `paramz.coord_check`.

    Attributes:
        widths: model widths; (64, 128, 256, 512) if nothing is varied.
        depths: numbers of blocks, instead.
        experts: numbers of experts, instead.
        ranks: ranks of adapters, instead.
        densities: densities of masks, instead.
        base_width: the base of the parametrization, by default the smallest width; over depths,
            experts, ranks or densities the width of all models, by default 64.
        parametrization: name or table.
        optimizer: name or class of an optimizer, or a function that makes it.
        lr: base learning rate, or several.
        steps: updates.
        seeds: number of seeds, or the seeds.
        config: passed to the task function when the task is given by name.
        options: for the optimizer.
    """

    widths: Sequence[int] | None = None
    depths: Sequence[int] | None = None
    experts: Sequence[int] | None = None
    ranks: Sequence[int] | None = None
    densities: Sequence[float] | None = None
    base_width: int | None = None
    parametrization: str | Parametrization = "mup"
    optimizer: str | type | MakesOptimizers = "adamw"
    lr: float | Sequence[float] = 2**-8
    steps: int = 3
    seeds: int | Sequence[int] = 3
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def axis(self) -> tuple[str, Sequence[float]]:
        """The scale that is varied, and its values.

        Raises:
            ValueError: fewer than two values, or more than one scale.

        >>> Check(depths=[2, 4]).axis()
        ('depth', [2, 4])
        """
        given: dict[str, Sequence[float] | None] = {
            "width": self.widths,
            "depth": self.depths,
            "experts": self.experts,
            "rank": self.ranks,
            "density": self.densities,
        }
        chosen = {axis: scales for axis, scales in given.items() if scales is not None}
        if len(chosen) > 1:
            raise ValueError(
                "a check is over one of widths, depths, experts, ranks and densities; got "
                f"{' and '.join(chosen)}"
            )
        axis, scales = next(iter(chosen.items()), ("width", (64, 128, 256, 512)))
        if len(set(scales)) < 2:
            plural = {"experts": "experts", "density": "densities"}.get(axis, f"{axis}s")
            raise ValueError(
                f"{plural}={list(scales)}: a slope needs at least two different {plural}"
            )
        return axis, scales

    @property
    def lrs(self) -> tuple[float, ...]:
        """The base learning rates.

        Raises:
            ValueError: there is none.
        """
        if isinstance(self.lr, float | int | Real):  # numbers of numpy, too
            return (float(self.lr),)
        if not len(self.lr):
            raise ValueError("lr=[]: a check takes a learning rate or several")
        return tuple(float(lr) for lr in self.lr)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds.

        Raises:
            ValueError: there is none.

        >>> Check(seeds=2).all_seeds, Check(seeds=[7]).all_seeds
        ((0, 1), (7,))
        """
        asked = self.seeds
        found = range(int(asked)) if isinstance(asked, int | Integral) else asked
        if not len(found):
            raise ValueError(f"seeds={asked}: a check takes one seed or more")
        return tuple(int(seed) for seed in found)


def make_jobs(task: Task | str, check: Check, *, shares: int = 1) -> list[CheckJob]:
    """The jobs of a check, the largest model first, because it takes longest.

    Args:
        task: the task, or the name of a function that returns it.
        check: what is varied.
        shares: into how many jobs the learning rates of a model are split.

    Raises:
        ValueError: fewer than two scales, or more than one kind of them; no learning rate, seed or
            update.

    >>> [(job.scale, job.seed) for job in make_jobs("lab:task", Check(widths=[8, 16], seeds=1))]
    [(16, 0), (8, 0)]
    """
    axis, scales = check.axis()
    if check.steps < 1:
        raise ValueError(f"steps={check.steps}: a change is seen after one update or more")
    given = check.base_width
    least = max(scales) if axis == "density" else min(scales)  # the densest is the base
    return [
        CheckJob(
            task=task,
            config=dict(check.config),
            parametrization=check.parametrization,
            optimizer=check.optimizer,
            options=dict(check.options),
            lrs=part,
            steps=check.steps,
            axis=axis,
            base=given if axis == "width" and given is not None else least,
            scale=scale,
            width=64 if given is None else given,
            seed=seed,
        )
        for scale, seed, part in itertools.product(
            sorted(set(scales), reverse=True), check.all_seeds, _shares(check.lrs, max(shares, 1))
        )
    ]


def optimizer_name(optimizer: str | type | MakesOptimizers) -> str:
    """What stands in the column optimizer.

    >>> optimizer_name("adamw"), optimizer_name(dict), optimizer_name(lambda plan, model: [])
    ('adamw', 'dict', 'custom')
    """
    if isinstance(optimizer, str):
        return optimizer
    if isinstance(optimizer, type):
        return optimizer.__name__.lower()
    name = str(getattr(optimizer, "__name__", type(optimizer).__name__))
    return "custom" if name.startswith("<") else name


def input_of(path: str) -> str:
    """What stands in the column module for what goes into a module; no path looks like it.

    >>> input_of("blocks.0.mlp")
    'blocks.0.mlp(input)'
    """
    return f"{path}(input)"


def numbered(row: str, call: int) -> str:
    """What stands in the column module for a module's first, second, ... call.

    >>> numbered("head", 1), numbered("head", 2)
    ('head', 'head#2')
    """
    return row if call == 1 else f"{row}#{call}"


def table(axis: str, rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """The rows of all jobs of a check, sorted; modules stay in forward order."""
    import pandas as pd

    data = list(rows)
    columns = ["parametrization", "optimizer", axis, *COLUMNS]
    # Rows that an earlier version stored lack the column last.
    frame = pd.DataFrame(data, columns=columns[: len(data[0])] if data else columns)
    frame = _last_calls(frame, axis)
    # At one size the last axis may be as long as a width by chance, so one job that knows suffices.
    whole = frame.module.str.startswith(MODEL)
    if (frame.role[whole] == "output").any():
        frame.loc[whole, "role"] = "output"
    frame = _one_role(frame, axis)
    keys = [axis, "seed", "lr", "step", "quantity"]
    order = frame.groupby(keys, sort=False).cumcount()
    frame = frame.assign(_order=order).sort_values([*keys, "_order"], kind="stable")
    return frame.drop(columns="_order").reset_index(drop=True)


def _last_calls(frame: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The table with the last call of modules that run more often at larger scales.

    Calls are compared by how far the end is: after the first loop of many a state has moved by a
    small part of what all loops do, and of the only one by all. Each run has a last one of its own,
    as code that decides when to stop loops more often for some seeds.
    """
    named = frame.module.str.partition("#")
    number = named[2].where(named[2] != "", "1").astype(int)
    calls = number.groupby([named[0], frame[axis]]).transform("max")
    varies = calls.groupby(named[0]).transform("nunique") > 1
    keys = ["parametrization", "optimizer", axis, "seed", "lr", "step"]
    runs = number.groupby([named[0], *(frame[key] for key in keys)], dropna=False)
    kept = ~varies | (number == runs.transform("max"))
    return frame.assign(module=named[0].where(varies, frame.module))[kept]


def _one_role(frame: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The table with one role for each module, that of the largest scale.

    A module's role is that of its largest weight, which may be another one in small models: in an
    LSTM the map of the input is larger than the recurrent one until the width exceeds the input's.
    """
    largest = frame.sort_values(axis, kind="stable").drop_duplicates("module", keep="last")
    return frame.assign(role=frame.module.map(largest.set_index("module").role))


def _shares(lrs: tuple[float, ...], number: int) -> list[tuple[float, ...]]:
    """Learning rates for each worker, so that the largest model keeps all of them busy."""
    return [part for start in range(number) if (part := lrs[start::number])]
