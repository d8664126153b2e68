"""Figures: each function takes what the analysis returns, draws on ``ax`` and gives it back.

None of them shows or saves anything. Without ``ax`` they make a figure in the common style
(`paramz.analysis.plots.style`).
"""

from __future__ import annotations

from paramz.analysis.plots.compute import contours, frontier, isoflop
from paramz.analysis.plots.coord import coord_check, coord_module, steepest
from paramz.analysis.plots.law import law, residuals
from paramz.analysis.plots.regret import regret, regrets
from paramz.analysis.plots.sweep import collapse, loss_curves, optima, transfer

__all__ = [
    "collapse",
    "contours",
    "coord_check",
    "coord_module",
    "frontier",
    "isoflop",
    "law",
    "loss_curves",
    "optima",
    "regret",
    "regrets",
    "residuals",
    "steepest",
    "transfer",
]
