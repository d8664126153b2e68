"""What specs and results of the steps say: the design in words, as edited, and the forecast."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from paramz.sweeps.spec.config import SEED
from paramz.sweeps.spec.spec import Sweep
from paramz.tuning.cost import Cost
from paramz.tuning.forecast import Forecast, over_size_and_data, over_width
from paramz.tuning.proxies import Design
from paramz.tuning.work import Work

if TYPE_CHECKING:
    import pandas as pd


def design_of(sweep: Sweep, design: Design, steps: str) -> Design:
    """The design with the proxies that the sweep's spec has, which the user may have edited."""
    configs = list(sweep.configs())
    sizes = {config["width"]: config for config in configs}
    widths = tuple(sorted(sizes))
    seeds = len({config.get(SEED) for config in configs})
    if widths == design.widths and seeds == design.seeds:
        return design
    depths = tuple(sizes[width].get("depth") for width in widths)
    if all(depth is None for depth in design.depths):
        depths = (None,) * len(widths)
    own = sizes[widths[0]].get(steps, design.steps)
    return replace(design, widths=widths, depths=depths, steps=own, seeds=seeds)


def middle_of(losses: Mapping[float, float]) -> float:
    """Log2 of where a coarse curve is lowest, to half an octave.

    It is the vertex of the parabola through the lowest point and its neighbours, since the points
    lie octaves apart.

    Args:
        losses: by value.

    >>> middle_of({2.0**x: (x + 5) ** 2 for x in (-8, -6, -4, -2)})
    -5.0
    """
    values = sorted(losses)
    best = min(range(len(values)), key=lambda i: losses[values[i]])
    middle = math.log2(values[best])
    if 0 < best < len(values) - 1:
        low, here, high = (losses[values[best + i]] for i in (-1, 0, 1))
        step = (math.log2(values[best + 1]) - math.log2(values[best - 1])) / 2
        if (bend := low - 2 * here + high) > 0:
            middle += step * min(1.0, max(-1.0, (low - high) / (2 * bend)))
    return round(2 * middle) / 2


def why(work: Work, design: Design, cost: Cost, pays: float) -> Iterator[str]:
    """The proxies in words, each with its reason."""
    listed = ", ".join(map(str, design.widths))
    most = work.spent(cost.trial(design.widths[-1], design.steps), pays)
    fixed = (
        "as the spec asks"
        if work.wanted.fixed
        else "the largest is what the budget pays for, at most a quarter of the target"
    )
    yield (
        f"widths {listed}: {fixed}; a trial of it takes {work.budget.say(most)} and a run of the "
        f"target {work.budget.say(work.spent(cost.trial(work.target.width, work.steps), pays))}"
    )
    if work.depth_grows:
        blocks = ", ".join(map(str, design.depths))
        yield f"depths {blocks}: the target's shape, since {work.scheme} has a rule for depth"
    elif work.target.depth is not None:
        yield (
            f"depth {work.target.depth}, that of the target: the best lr moves with depth under "
            f"{work.scheme}, which has no rule for it ({work.scheme}+completep has)"
        )
    if design.steps is None:
        yield "steps: as the source sets them"
    elif design.shorter:
        few = ", ".join(map(str, design.shorter))
        yield (
            f"steps {design.steps} in place of the target's {work.steps}, which the budget does "
            f"not pay for; and {few}, to see how lr and loss move with them"
        )
    else:
        yield f"steps {design.steps}, those of the target: no rule has to carry lr over"
    own = work.config.get(work.setting.batch)
    if own is not None:
        yield f"batch {own}"
    reason = "" if work.setting.seeds else ": the command has no {seed}, so trials are not repeated"
    planned = work.budget.say(work.spent(design.seconds, pays))
    yield f"seeds {design.seeds}{reason}; all of it is expected to take {planned}"


def forecast_of(work: Work, design: Design, runs: pd.DataFrame, spec: Sweep) -> Forecast:
    """The loss of the target, from the proxies at the chosen value."""
    good = runs[runs["status"] == "ok"]
    diverged = sorted(set(runs.loc[runs["status"] == "diverged", "width"]))
    if diverged:
        listed = ", ".join(map(str, diverged))
        return Forecast(missing=f"the chosen value diverged at width {listed} with some seed")
    hp, target = work.setting.hp, work.target
    if work.batch_ratio != 1:
        return Forecast(
            missing="the proxies have another batch size than the target, so that as many steps "
            f"see other amounts of data: train them with {work.setting.batch}="
            f"{target.batch_size} for a prediction"
        )
    if design.steps == work.steps or work.steps is None or not design.shorter:
        value = next(spec.configs())[hp]
        return over_width(good, hp, value, target.width)
    steps = work.setting.steps
    if "parameters" in good and work.task is not None:
        size = _parameters(work)
        if size is not None:
            return over_size_and_data(
                good, {"N": "parameters", "D": steps}, {"N": size, "D": work.steps}
            )
    return over_size_and_data(
        good, {"N": "width", "D": steps}, {"N": target.width, "D": work.steps}
    )


def _parameters(work: Work) -> float | None:
    """The target's number of parameters; None where the task cannot build it."""
    import torch

    assert work.task is not None
    rest = {} if work.target.depth is None else {"depth": work.target.depth}
    try:
        with torch.device("meta"):
            model = work.task.build(work.target.width, **rest)
    except TypeError:
        return None
    return float(sum(p.numel() for p in model.parameters()))
