"""The proxies again, once trials have run and their time is known better than by the pilot."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from paramz.tuning.conclude import Findings
from paramz.tuning.proxies import Design, choose
from paramz.tuning.reading import why

if TYPE_CHECKING:
    import pandas as pd

# By what factor trials of the range may take longer or shorter than the pilot says before the
# proxies are chosen anew.
_FAR = 1.4


def planned_anew(known: Findings, runs: pd.DataFrame) -> Findings:
    """The design that is left to be paid for by what trials take, where the pilot was far off.

    Args:
        known: with the design by the pilot.
        runs: of the range, which are of the smallest proxy and have its number of steps.
    """
    work, design = known.work, known.design
    # Those that diverged may have stopped early.
    took = float(runs.loc[runs["status"] == "ok", "seconds"].mean())
    expected = known.cost.trial(design.widths[0], design.steps)
    if 1 / _FAR <= took / expected <= _FAR:
        return known
    cost = known.cost.corrected(design.widths[0], design.steps, took)
    left = known.pays - work.stages.seconds() + float(runs["seconds"].sum())
    try:
        chosen = work.stages.remembered(
            "design after the range", lambda: asdict(choose(work.wanted, cost, left))
        )
    except ValueError:  # as little as possible was planned already
        return replace(known, cost=cost)
    known = replace(known, design=Design.from_json(chosen), cost=cost)
    priced = [work.budget.say(work.spent(seconds, known.pays)) for seconds in (took, expected)]
    work.stages.say(f"a trial took {priced[0]} where the pilot said {priced[1]}: planned anew")
    for line in why(work, known.design, cost, known.pays):
        work.stages.say(line)
    return known
