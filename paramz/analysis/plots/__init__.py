"""Figures: each function takes what the analysis returns, draws on `ax` and gives it back.

None of them shows or saves anything. Without `ax` they make a figure in the common style
(`paramz.analysis.plots.style`).
"""

from paramz.analysis.plots.coord import coord_check, coord_module, steepest
from paramz.analysis.plots.sweep import loss_curves, optima, transfer

__all__ = [
    "coord_check",
    "coord_module",
    "loss_curves",
    "optima",
    "steepest",
    "transfer",
]
