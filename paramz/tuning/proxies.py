"""Which smaller models stand for the target, how long they train, and how often each is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paramz.tuning.cost import Cost

# The largest proxy is at most a quarter of the target, else one might as well tune that itself; the
# smallest is wide enough that averages over its width are averages.
_LARGEST, _SMALLEST = 4, 32
# A power law with a floor has three parameters, one width is kept for the interval and one to test
# the law. More widths than seven are better spent on seeds.
FOR_A_LAW, _MOST_WIDTHS, _FEWEST_WIDTHS = 5, 7, 3
_SPAN = 4  # the largest proxy over the smallest: fewer doublings say little about drift
_MOST_SEEDS = 4
_FEWEST_STEPS = 50
# Runs of the sweep per width and seed: five values of the grid, and two that refine them.
GRID, REFINED = 5, 2
# Runs that find the grid: values two octaves apart, and the rounds that extend them.
RANGE = 10
# What the plan leaves for trials that take longer than the pilot says, and for further rounds.
_RESERVE = 0.85


@dataclass(frozen=True)
class Design:
    """The smaller runs that are made.

    Attributes:
        widths: in order.
        depths: of each; None where depth is not set.
        steps: of each; None where the number cannot be set.
        shorter: further numbers of steps, where the target trains for longer than the proxies.
        seeds: of the sweep over the learning rate.
        repeats: seeds of the runs at the chosen value, from which the loss is predicted.
        seconds: what it takes, by the pilot.
    """

    widths: tuple[int, ...]
    depths: tuple[int | None, ...]
    steps: int | None
    shorter: tuple[int, ...]
    seeds: int
    repeats: int
    seconds: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Design:
        """The design whose fields a JSON document holds."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        return cls(**fields)


@dataclass(frozen=True)
class Wanted:
    """What a design is chosen for.

    Attributes:
        widths: that may be proxies, in order.
        depth_of: the depth of the proxy of a width; None where depth is not set.
        steps: of the target; None where they cannot be set.
        fixed: the widths that the user asks for; empty where they are to be chosen.
        seeds: likewise; None.
        points: values of the hyperparameter that the user asks for; None.
    """

    widths: tuple[int, ...]
    depth_of: Callable[[int], int | None]
    steps: int | None
    fixed: tuple[int, ...] = ()
    seeds: int | None = None
    points: int | None = None


def possible_widths(target: int) -> tuple[int, ...]:
    """Widths that may stand for a target: a quarter of it, and down by factors of about 2**0.5.

    They are the target over powers of two, and three quarters of these, so that what divides the
    target (heads, groups) divides most of them.

    Raises:
        ValueError: the target is so small that it is no less work to tune it directly.

    >>> possible_widths(512)
    (32, 48, 64, 96, 128)
    """
    found = []
    size = target / _LARGEST
    while size >= _SMALLEST:
        for width in (size, 0.75 * size):
            if width >= _SMALLEST:
                found.append(int(width) if float(width).is_integer() else 8 * round(width / 8))
        size /= 2
    widths = tuple(sorted(set(found)))
    if len(widths) < _FEWEST_WIDTHS or widths[-1] < 2 * _SMALLEST:
        raise ValueError(
            f"the target's width is {target}: proxies from {_SMALLEST} to a quarter of it would be "
            f"fewer than {_FEWEST_WIDTHS}; so small a model is tuned by paramz sweep itself"
        )
    return widths


def choose(
    wanted: Wanted, cost: Cost, seconds: float, say: Callable[[float], str] | None = None
) -> Design:
    """The best design that a number of seconds pays for.

    Steps stay those of the target if any design with two seeds does; then the largest proxy is made
    as large as possible, with enough widths for a law; what is left buys seeds.

    Args:
        wanted: what is asked for.
        cost: what trials take.
        seconds: of trials, one after the other.
        say: such seconds in the unit of the budget, for people; by default as they are.

    Raises:
        ValueError: not even the smallest design fits; the message says what it takes.
    """
    least: Design | None = None
    for seeds, fewest in ((2, FOR_A_LAW), (1, FOR_A_LAW), (1, _FEWEST_WIDTHS)):
        for steps in _steps(wanted.steps):
            for widths in _ladders(wanted, fewest):
                design = _design(wanted, cost, widths, steps, seeds)
                if design.seconds <= _RESERVE * seconds:
                    return _enlarged(wanted, cost, design, _RESERVE * seconds)
                if least is None or design.seconds < least.seconds:
                    least = design
    if least is None:
        raise ValueError(
            f"the widths {', '.join(map(str, wanted.widths))} are fewer than {_FEWEST_WIDTHS}: a "
            "larger target, or axes: {width: [...]} in a spec, gives more"
        )
    listed, needed = ", ".join(map(str, least.widths)), math.ceil(least.seconds / _RESERVE)
    said = say or (lambda amount: f"{amount:.0f} s of trials")
    left = (
        f"{said(seconds)} of the budget are left"
        if seconds >= 0
        else f"the pilot and the check take {said(-seconds)} more than the budget, nothing is left"
    )
    raise ValueError(
        f"{left} for the sweeps; the smallest design "
        f"(widths {listed}, {least.seeds} seed{'s' * (least.seeds > 1)}{_for(least.steps)}) takes "
        f"{said(needed)}: give {said(needed - seconds)} more, or fewer steps"
    )


def _for(steps: int | None) -> str:
    return "" if steps is None else f", {steps} steps"


def _steps(target: int | None) -> Iterator[int | None]:
    """Numbers of steps, those of the target first."""
    if target is None:
        yield None
        return
    steps = target
    while steps >= min(target, _FEWEST_STEPS):
        yield steps
        steps //= 2


def _ladders(wanted: Wanted, fewest: int) -> Iterator[tuple[int, ...]]:
    """Widths with as large a largest one as possible first; of these the fewest that will do."""
    if wanted.fixed:
        yield wanted.fixed
        return
    for end in range(len(wanted.widths), fewest - 1, -1):
        widths = wanted.widths[max(0, end - fewest) : end]
        # Few widths near each other see no drift: every other one is taken where there are enough.
        if widths[-1] < _SPAN * widths[0] and end >= 2 * fewest - 1:
            widths = wanted.widths[end - 1 :: -2][:fewest][::-1]
        yield widths


def _design(
    wanted: Wanted, cost: Cost, widths: Sequence[int], steps: int | None, seeds: int
) -> Design:
    shorter: tuple[int, ...] = ()
    if steps is not None and steps != wanted.steps:
        shorter = tuple(max(1, steps // part) for part in (4, 2))
    design = Design(
        tuple(widths),
        tuple(wanted.depth_of(width) for width in widths),
        steps,
        shorter,
        wanted.seeds or seeds,
        max(2, wanted.seeds or seeds),
        0.0,
    )
    return replace(design, seconds=seconds_of(design, cost, wanted.points))


def _enlarged(wanted: Wanted, cost: Cost, design: Design, seconds: float) -> Design:
    """The design with more widths and seeds, as long as it fits."""
    if not wanted.fixed:
        below = [w for w in wanted.widths if w < design.widths[-1] and w not in design.widths]
        for width in reversed(below):
            widths = tuple(sorted((*design.widths, width)))
            more = _design(wanted, cost, widths, design.steps, design.seeds)
            if more.seconds > seconds or len(widths) > _MOST_WIDTHS:
                break
            design = more
    while design.seeds < _MOST_SEEDS and wanted.seeds is None:
        more = _design(wanted, cost, design.widths, design.steps, design.seeds + 1)
        if more.seconds > seconds:
            break
        design = more
    return design


def seconds_of(design: Design, cost: Cost, points: int | None = None) -> float:
    """What all trials of a design take, one after the other.

    Args:
        design: the design.
        cost: what a trial takes.
        points: values of the hyperparameter that the user asks for; None for those of a plan.
    """
    grid = (points or GRID) + REFINED
    smallest = design.widths[0]
    total = 0.0 if points else RANGE * cost.trial(smallest, design.steps)
    for width in design.widths:
        total += (grid * design.seeds + design.repeats) * cost.trial(width, design.steps)
        total += design.repeats * sum(cost.trial(width, steps) for steps in design.shorter)
    return total + grid * design.seeds * sum(cost.trial(smallest, s) for s in design.shorter)
