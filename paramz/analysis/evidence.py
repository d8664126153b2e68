"""What was measured of one group of runs, and what of it deserves to be said beside a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from paramz.analysis.curves import Curve, Regret
from paramz.analysis.drift import Line


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the verdict on one group rests on.

    Attributes:
        name: the group.
        hp: name of the hyperparameter.
        scale: name of the scale.
        curves: in order of scale, two or more; those of scales where a run did not diverge.
        dead: the other scales, where a run diverged at every value, with their largest and smallest
            values in log2.
        partly: those of them where some runs did not, with the seeds that have no loss at all.
        short: scales left out because they have fewer than three grid points.
        line: how the optimum moves.
        cost: what the smallest scale's best value costs at the largest.
        steps: training steps, where all runs have the same.
        batch: batch size, likewise.
        mixed: in which of the two the runs differ, or in depth beside width or width beside depth,
            and by how much.
    """

    name: str
    hp: str
    scale: str
    curves: list[Curve]
    dead: dict[float, tuple[float, float]]
    partly: dict[float, list[object]]
    short: list[float]
    line: Line
    cost: Regret
    steps: float | None
    batch: float | None
    mixed: list[str]


def notes_on(known: Evidence) -> Iterator[str]:
    """What deserves to be known beside the numbers."""
    named = {
        "two minima": "Two minima of nearly equal loss",
        "plateau": "A plateau, no optimum singled out,",
        "cliff": "Optimum beside a cliff",
    }
    edges = [c for c in known.curves if c.optimum.flag == "edge"]
    beyond = [f"{c.scale:g}" for c in edges if c.at_end]
    if beyond:
        yield f"Optimum at the edge of the grid at {known.scale} {', '.join(beyond)}"
    if open_ := [f"{c.scale:g}" for c in edges if not c.at_end]:
        yield (
            f"The grid ends before the loss clearly rises at {known.scale} {', '.join(open_)}, so "
            "that the optimum may lie beyond it"
        )
    for flag, words in named.items():
        at = [f"{c.scale:g}" for c in known.curves if c.optimum.flag == flag]
        if at:
            yield f"{words} at {known.scale} {', '.join(at)}"
    if whole := [f"{s:g}" for s in known.dead if s not in known.partly]:
        yield f"Every run diverged at {known.scale} {', '.join(whole)}"
    yield from died_of_seeds(known.partly, known.hp, known.scale)
    if known.mixed:
        yield f"Runs differ in {' and '.join(known.mixed)}, with which the best {known.hp} may move"
    if known.short:
        at_short = ", ".join(f"{s:g}" for s in known.short)
        yield (f"Left out, with fewer than three values of {known.hp}: {known.scale} {at_short}")
    if all(c.seeds == 1 for c in known.curves):
        yield "One seed: how far the optimum moves between seeds was not seen"


def died_of_seeds(partly: Mapping[float, list[object]], hp: str, scale: str) -> Iterator[str]:
    """What to say of scales at which some seed diverged at every value, but not every run did."""
    for size, seeds in partly.items():
        text = f"At {scale} {size:g} a seed diverged at every value of {hp}"
        if seeds:
            which = ", ".join(map(str, seeds))
            text += (
                f": seed {which} has no loss at any of them; leave out what did not run, or give "
                "it the status 'failed'"
            )
        yield text
