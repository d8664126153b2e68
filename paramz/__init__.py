"""Hyperparameter transfer for PyTorch models nobody rewrote.

Names load on first use (PEP 562): ``import paramz`` imports neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.adopt import adopt_ as adopt_
    from paramz.adopt import restore_ as restore_
    from paramz.apply import fold_ as fold_
    from paramz.apply import init_ as init_
    from paramz.apply import make_plan as make_plan
    from paramz.apply import parametrize_ as parametrize_
    from paramz.apply import plan_of as plan_of
    from paramz.apply import remove_ as remove_
    from paramz.axes import Axes as Axes
    from paramz.branches import Branches as Branches
    from paramz.check import coord_check as coord_check
    from paramz.checkpoints import check_checkpoint as check_checkpoint
    from paramz.clipping import clip_grad_norm_ as clip_grad_norm_
    from paramz.conversion.convert import convert as convert
    from paramz.families import family as family
    from paramz.optimizers import make_optimizers as make_optimizers
    from paramz.plan import Plan as Plan
    from paramz.reparam.apply import reparametrize_ as reparametrize_
    from paramz.reparam.apply import unreparametrize_ as unreparametrize_
    from paramz.reparam.compander import Compander as Compander
    from paramz.reparam.weight_norm import WeightNorm as WeightNorm
    from paramz.rules import Family as Family
    from paramz.rules import Parametrization as Parametrization
    from paramz.rules import Power as Power
    from paramz.rules import Rule as Rule
    from paramz.schedules import check_schedule as check_schedule
    from paramz.tables import COMPLETEP as COMPLETEP
    from paramz.tables import DEPTH_MUP as DEPTH_MUP
    from paramz.tables import MEAN_FIELD as MEAN_FIELD
    from paramz.tables import MOE_HIDDEN_ROUTER as MOE_HIDDEN_ROUTER
    from paramz.tables import MOE_MUP as MOE_MUP
    from paramz.tables import MUP as MUP
    from paramz.tables import NTP as NTP
    from paramz.tables import SP as SP
    from paramz.tables import U_MUP as U_MUP
    from paramz.tables import parametrization as parametrization
    from paramz.task import Task as Task
    from paramz.verdict import Verdict as Verdict
    from paramz.verdict import judge as judge

__version__ = "0.1.0"

_HOME = {
    "Axes": "axes",
    "Branches": "branches",
    "Compander": "reparam.compander",
    "Plan": "plan",
    "adopt_": "adopt",
    "check_checkpoint": "checkpoints",
    "check_schedule": "schedules",
    "clip_grad_norm_": "clipping",
    "fold_": "apply",
    "restore_": "adopt",
    "init_": "apply",
    "make_plan": "apply",
    "parametrize_": "apply",
    "plan_of": "apply",
    "remove_": "apply",
    "reparametrize_": "reparam.apply",
    "unreparametrize_": "reparam.apply",
    "WeightNorm": "reparam.weight_norm",
    "Family": "rules",
    "COMPLETEP": "tables",
    "DEPTH_MUP": "tables",
    "MEAN_FIELD": "tables",
    "MOE_HIDDEN_ROUTER": "tables",
    "MOE_MUP": "tables",
    "MUP": "tables",
    "NTP": "tables",
    "Parametrization": "rules",
    "Power": "rules",
    "Rule": "rules",
    "SP": "tables",
    "Task": "task",
    "U_MUP": "tables",
    "Verdict": "verdict",
    "convert": "conversion.convert",
    "coord_check": "check",
    "family": "families",
    "make_optimizers": "optimizers",
    "judge": "verdict",
    "parametrization": "tables",
}
_MODULES = (
    "analysis",
    "check",
    "families",
    "hf",
    "nn",
    "optim",
    "reparam",
    "rules",
    "slurm",
    "sweeps",
    "tables",
)

__all__ = ["__version__", *sorted(_HOME), *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"paramz.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"paramz.{name}")
    raise AttributeError(f"module 'paramz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
