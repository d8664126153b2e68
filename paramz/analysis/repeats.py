"""Seeds that made no difference: runs whose losses are those of another seed, to the last digit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from paramz.analysis.columns import Mask
from paramz.analysis.runs import led

# Fewer finite losses than this, all different, may agree by chance where they are rounded.
_ENOUGH = 3


def repeated_seeds(runs: pd.DataFrame) -> tuple[Mask, list[str]]:
    """Which runs only repeat those of another seed, and a note for each group that has some.

    Training that does not take its seed gives every seed the same losses. Counted as further seeds
    they would say that the optimum does not move between seeds, which nobody has seen.

    Args:
        runs: as from `paramz.analysis.runs.tidy_runs`.

    Returns:
        a mask over the rows, true for repeats, and the notes.

    >>> one = pd.DataFrame({"group": "all", "scale": [8.0, 8.0, 16.0], "x": [0.0, 1.0, 0.0]})
    >>> one = one.assign(seed=0, loss=[0.5, 0.25, 0.125])
    >>> mask, notes = repeated_seeds(pd.concat([one, one.assign(seed=1)]))
    >>> mask.tolist(), notes[0][:46]
    ([False, False, False, True, True, True], 'Seed 1 has the very losses of another seed: th')
    """
    repeats = np.zeros(len(runs), dtype=bool)
    notes = []
    for group, part in runs.groupby("group", sort=False):
        kept: list[pd.Series[float]] = []
        again = []
        for seed, rows in part.groupby("seed", sort=False):
            losses = rows.set_index(["scale", "x"])["loss"]
            if any(_repeats(losses, other) for other in kept):
                again.append(seed)
            else:
                kept.append(losses)
        if again:
            repeats |= ((runs["group"] == group) & runs["seed"].isin(again)).to_numpy()
            named = f"seed{'s' * (len(again) > 1)} {', '.join(map(str, again))}"
            said = f"{named} {'have' if len(again) > 1 else 'has'} the very losses of another seed"
            why = "the training did not take the seed, and such runs count once"
            notes.append(led(str(group), f"{said}: {why}"))
    return repeats, notes


def _repeats(losses: pd.Series[float], other: pd.Series[float]) -> bool:
    """Whether a seed's losses are all among those of another at the same settings."""
    if not losses.index.isin(other.index).all():
        return False
    finite = losses[np.isfinite(losses)]
    return finite.nunique() >= _ENOUGH and bool((losses == other.reindex(losses.index)).all())
