"""The jobs that a coordinate check consists of, and the table of what they measure.

Imports no torch: whoever hands the jobs to other machines need not be able to run them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from paramz.apply.task import Task
    from paramz.theory.rules import Parametrization

# Of the table, after the scale that was varied.
COLUMNS = (
    "seed",
    "lr",
    "step",
    "module",
    "role",
    "quantity",
    "rms",
)

Rows = list[tuple[Any, ...]]
"""Parametrization, optimizer, the scale, and `COLUMNS`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model of the check: everything a worker process needs, picklable."""

    task: Task | str
    config: Mapping[str, Any]
    parametrization: str | Parametrization
    optimizer: str
    options: Mapping[str, Any]
    lrs: tuple[float, ...]
    steps: int
    axis: str
    base: int
    scale: int
    width: int
    seed: int


def make_jobs(
    task: Task | str,
    *,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    experts: Sequence[int] | None = None,
    base_width: int | None = None,
    parametrization: str | Parametrization = "mup",
    optimizer: str = "adamw",
    lr: float | Sequence[float] = 2**-8,
    steps: int = 3,
    seeds: int | Sequence[int] = 3,
    config: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    shares: int = 1,
) -> list[Job]:
    """The jobs of a check, the largest model first, because it takes longest.

    Arguments are those of `paramz.coord_check`; the learning rates of a model are dealt out to so
    many ``shares``.

    Raises:
        ValueError: fewer than two scales, or more than one kind of them.
    """
    axis, scales = _axis(widths, depths, experts)
    lrs = (lr,) if isinstance(lr, float | int) else tuple(lr)
    return [
        Job(
            task=task,
            config=dict(config or {}),
            parametrization=parametrization,
            optimizer=optimizer,
            options=dict(options or {}),
            lrs=part,
            steps=steps,
            axis=axis,
            base=base_width if axis == "width" and base_width is not None else min(scales),
            scale=scale,
            width=64 if base_width is None else base_width,
            seed=seed,
        )
        for scale, seed, part in itertools.product(
            sorted(set(scales), reverse=True),
            range(seeds) if isinstance(seeds, int) else seeds,
            _shares(lrs, shares),
        )
    ]


def table(axis: str, rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """The rows of all jobs of a check, sorted; modules stay in forward order."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=["parametrization", "optimizer", axis, *COLUMNS])
    keys = [axis, "seed", "lr", "step", "quantity"]
    order = frame.groupby(keys, sort=False).cumcount()
    frame = frame.assign(_order=order).sort_values([*keys, "_order"], kind="stable")
    return frame.drop(columns="_order").reset_index(drop=True)


def _axis(
    widths: Sequence[int] | None, depths: Sequence[int] | None, experts: Sequence[int] | None
) -> tuple[str, Sequence[int]]:
    given = {"width": widths, "depth": depths, "experts": experts}
    chosen = {axis: scales for axis, scales in given.items() if scales is not None}
    if len(chosen) > 1:
        raise ValueError(
            f"a check is over one of widths, depths and experts; got {' and '.join(chosen)}"
        )
    axis, scales = next(iter(chosen.items()), ("width", (64, 128, 256, 512)))
    if len(set(scales)) < 2:
        plural = "experts" if axis == "experts" else f"{axis}s"
        raise ValueError(f"{plural}={list(scales)}: a slope needs at least two different {plural}")
    return axis, scales


def _shares(lrs: tuple[float, ...], number: int) -> list[tuple[float, ...]]:
    """Learning rates for each worker, so that the largest model keeps all of them busy."""
    return [part for start in range(number) if (part := lrs[start::number])]
