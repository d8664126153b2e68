"""Hyperparameters that were drawn along with the one that is judged, as in a random search."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from paramz.analysis.columns import numbers

# What else is tuned with a learning rate; other columns of fractions are taken for metrics.
_TUNED = re.compile(
    r"(weight_?decay|wd|lambda|beta_?[12]|momentum|eps(ilon)?|adam_eps(ilon)?|dropout|damping"
    r"|label_smoothing|(grad(ient)?_)?clip(_norm)?|init_std|sigma|warmup(_\w+)?|min_lr|lr|learning_rate)"
)  # fmt: skip
# Ranks that agree as far as this follow the hyperparameter, as a decay of c / lr does.
_FOLLOWS = 0.97


def drawn_beside(rows: pd.DataFrame, cells: pd.Series, hp: str, loss: str) -> list[str]:
    """A note on each other hyperparameter in which runs of one curve differ.

    Its effect is not told from noise. One that is the same in a curve, or goes with the
    hyperparameter that is judged, is none of these.

    Args:
        rows: the runs.
        cells: which curve each belongs to.
        hp: column of the hyperparameter that is judged.
        loss: column of the loss.

    >>> rows = pd.DataFrame({"lr": [1, 2, 4, 8], "wd": [0.3, 0.1, 0.4, 0.2], "loss": [3, 1, 2, 4]})
    >>> print(*drawn_beside(rows, pd.Series(0, index=rows.index), "lr", "loss"))
    runs that are compared differ in wd, too (0.1 to 0.4), whose effect counts as noise here and
    hides where the best lr lies: judge runs of nearly one wd (0.1 has the lowest loss), or sweep
    lr at one
    """
    notes = []
    curve = cells.to_numpy()
    for name in map(str, rows.columns):
        if name in (hp, loss) or not _TUNED.fullmatch(name.lower()):
            continue
        try:
            values = numbers(rows, name)
        except ValueError:  # a text is a setting by which groups are made
            continue
        both = pd.DataFrame({"cell": curve, "hp": numbers(rows, hp), "other": values}).dropna()
        parts = both.groupby("cell")
        if both.empty or parts["other"].nunique().max() < 3:
            continue
        ranks = parts.rank() - parts.rank().groupby(both["cell"]).transform("mean")
        first, second = ranks[["hp", "other"]].to_numpy().T
        size = float(np.linalg.norm(first) * np.linalg.norm(second))
        if size == 0 or abs(float(first @ second)) >= _FOLLOWS * size:
            continue
        losses = numbers(rows, loss)
        known = np.isfinite(losses) & np.isfinite(values)
        best = f"{values[known][np.argmin(losses[known])]:.3g}" if known.any() else "one"
        low, high = both["other"].min(), both["other"].max()
        notes.append(
            f"runs that are compared differ in {name}, too ({low:.3g} to {high:.3g}), whose effect "
            f"counts as noise here and hides where the best {hp} lies: judge runs of nearly one "
            f"{name} ({best} has the lowest loss), or sweep {hp} at one"
        )
    return notes
