"""What the columns of the page's tables mean, for readers who did not make the tables."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

DRIFT = {
    "slope": "how far the best {hp} moves per doubling; 0 is no move",
    "lo, hi": "its 95% interval",
    "edges": "optima at an end of their grid, which only bound the slope, or not told from one",
    "excess": "how many times farther the optima lie from a line than their own intervals explain",
}
OPTIMA = {
    "log2_opt": "log₂ of the best {hp}, between grid points",
    "lo, hi": "its 95% interval, in log₂",
    "log2_grid": "the grid point of lowest loss",
    "best": "the lowest loss",
    "flag": "edge: the optimum lies at an end of the grid, or may lie beyond it; cliff, plateau, "
    "two minima: the curve has them",
    "interval": "made from seeds, or, of one seed, from how far points lie off a smooth curve",
    "seeds, diverged": "how many seeds ran, and how many runs diverged",
}
REGRET = {
    "loss": "at the second scale with the best {hp} of the first",
    "regret": "how far that lies above the lowest loss there",
    "lo, hi": "its 95% interval",
    "share of gain": "regret over what growing from the one scale to the other gains",
    "sure": "whether noise cannot explain the status",
}
SENSITIVITY = {
    "sensitivity": "what a {hp} drawn between lo and hi (log₂) costs on average",
    "cap": "losses above it count as it",
}
QUALITY = {
    "error": "distance of the optima from a power law, in octaves",
    "scatter": "the part of it that their intervals do not explain",
    "robustness": "the power of scale with which the cost of a missed optimum grows",
    "floor": "the loss in the limit of large scales",
    "asymptotic_regret": "the floor above the lowest floor",
}


def explained(columns: Mapping[str, str], hp: str) -> str:
    """One paragraph on the columns of the table below it, as HTML.

    Args:
        columns: name -> meaning, in which ``{hp}`` stands for the hyperparameter.
        hp: its name.

    >>> explained({"best": "the lowest loss", "lo": "of {hp}"}, "lr")
    '<p class="faint"><b>best</b>: the lowest loss; <b>lo</b>: of lr.</p>'
    """
    told = (f"<b>{name}</b>: {text.format(hp=escape(hp))}" for name, text in columns.items())
    return f'<p class="faint">{"; ".join(told)}.</p>'
