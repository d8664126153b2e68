"""Transfer metrics, scaling laws, plots and the report. Imports no torch.

Tables and fits are imported with the package; figures and the report, which need matplotlib, when
they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paramz.analysis.answer import Answer
from paramz.analysis.collapse import Collapse, collapse
from paramz.analysis.criticalbatch import CriticalBatch, critical_batch
from paramz.analysis.decide import Verdict
from paramz.analysis.forms import FORMS, Form, custom, sum_of_powers
from paramz.analysis.isoflop import isoflop_minima
from paramz.analysis.joint import joint_optimum
from paramz.analysis.law import ScalingLaw, compare, largest
from paramz.analysis.lawfit import LawFit, LawWarning
from paramz.analysis.prediction import Prediction, predict_loss
from paramz.analysis.saved import load_law
from paramz.analysis.schedule import ScheduleFit, fit_schedule
from paramz.analysis.tables import read_table
from paramz.analysis.transfer import Transfer, transfer

if TYPE_CHECKING:
    from paramz.analysis import plots
    from paramz.analysis.report import write_report

__all__ = [
    "Answer",
    "Collapse",
    "CriticalBatch",
    "Prediction",
    "collapse",
    "predict_loss",
    "FORMS",
    "Form",
    "LawFit",
    "LawWarning",
    "ScalingLaw",
    "Transfer",
    "Verdict",
    "ScheduleFit",
    "compare",
    "critical_batch",
    "custom",
    "fit_schedule",
    "isoflop_minima",
    "joint_optimum",
    "largest",
    "load_law",
    "plots",
    "read_table",
    "sum_of_powers",
    "transfer",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("paramz.analysis.plots")
    if name == "write_report":
        return importlib.import_module("paramz.analysis.report").write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
