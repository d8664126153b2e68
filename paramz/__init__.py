"""Hyperparameter transfer for PyTorch models that nobody has to rewrite.

Names load on first use (PEP 562): ``import paramz`` imports neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.analysis.coordinates import Verdict as Verdict
    from paramz.analysis.coordinates import judge as judge
    from paramz.anatomy.axes import Axes as Axes
    from paramz.anatomy.branches import Branches as Branches
    from paramz.apply.adopt import adopt_ as adopt_
    from paramz.apply.adopt import restore_ as restore_
    from paramz.apply.checkpoints import check_checkpoint as check_checkpoint
    from paramz.apply.clipping import clip_grad_norm_ as clip_grad_norm_
    from paramz.apply.parametrize import fold_ as fold_
    from paramz.apply.parametrize import init_ as init_
    from paramz.apply.parametrize import make_plan as make_plan
    from paramz.apply.parametrize import parametrize_ as parametrize_
    from paramz.apply.parametrize import remove_ as remove_
    from paramz.apply.schedules import check_schedule as check_schedule
    from paramz.apply.suggest import suggest as suggest
    from paramz.apply.task import Task as Task
    from paramz.check.callback import record as record
    from paramz.check.run import coord_check as coord_check
    from paramz.compat.convert.convert import convert as convert
    from paramz.optim.make import make_optimizers as make_optimizers
    from paramz.plan.on_model import plan_of as plan_of
    from paramz.plan.plan import Plan as Plan
    from paramz.reparam.maps.compander import Compander as Compander
    from paramz.reparam.maps.weight_norm import WeightNorm as WeightNorm
    from paramz.reparam.reparametrize import reparametrize_ as reparametrize_
    from paramz.reparam.reparametrize import unreparametrize_ as unreparametrize_
    from paramz.theory.decay import DECAYS as DECAYS
    from paramz.theory.families import Family as Family
    from paramz.theory.families import family as family
    from paramz.theory.horizon import HORIZONS as HORIZONS
    from paramz.theory.horizon import transfer_run as transfer_run
    from paramz.theory.power import Power as Power
    from paramz.theory.rules import Parametrization as Parametrization
    from paramz.theory.rules import Rule as Rule
    from paramz.theory.schemes import schemes as schemes
    from paramz.theory.tables import COMPLETEP as COMPLETEP
    from paramz.theory.tables import DEPTH_MUP as DEPTH_MUP
    from paramz.theory.tables import MEAN_FIELD as MEAN_FIELD
    from paramz.theory.tables import MOE_BOTTLENECK as MOE_BOTTLENECK
    from paramz.theory.tables import MOE_MUP as MOE_MUP
    from paramz.theory.tables import MOE_READOUT_ROUTER as MOE_READOUT_ROUTER
    from paramz.theory.tables import MUP as MUP
    from paramz.theory.tables import NTP as NTP
    from paramz.theory.tables import SP as SP
    from paramz.theory.tables import U_MUP as U_MUP
    from paramz.theory.tables import parametrization as parametrization
    from paramz.theory.variants import BOTTLENECK_HIDDEN as BOTTLENECK_HIDDEN
    from paramz.theory.variants import BOTTLENECK_READOUT as BOTTLENECK_READOUT
    from paramz.theory.variants import EMBED as EMBED
    from paramz.theory.variants import FULL_ALIGN as FULL_ALIGN
    from paramz.theory.variants import LARGE_VOCAB as LARGE_VOCAB
    from paramz.theory.variants import NO_ALIGN as NO_ALIGN
    from paramz.tuning.decision import Decision as Decision
    from paramz.tuning.tune import tune as tune

__version__ = "0.1.0"

_HOME = {
    "Axes": "anatomy.axes",
    "Branches": "anatomy.branches",
    "BOTTLENECK_HIDDEN": "theory.variants",
    "BOTTLENECK_READOUT": "theory.variants",
    "COMPLETEP": "theory.tables",
    "Compander": "reparam.maps.compander",
    "DECAYS": "theory.decay",
    "Decision": "tuning.decision",
    "DEPTH_MUP": "theory.tables",
    "Family": "theory.families",
    "HORIZONS": "theory.horizon",
    "EMBED": "theory.variants",
    "FULL_ALIGN": "theory.variants",
    "LARGE_VOCAB": "theory.variants",
    "MEAN_FIELD": "theory.tables",
    "NO_ALIGN": "theory.variants",
    "MOE_BOTTLENECK": "theory.tables",
    "MOE_READOUT_ROUTER": "theory.tables",
    "MOE_MUP": "theory.tables",
    "MUP": "theory.tables",
    "NTP": "theory.tables",
    "Parametrization": "theory.rules",
    "Plan": "plan.plan",
    "Power": "theory.power",
    "Rule": "theory.rules",
    "SP": "theory.tables",
    "Task": "apply.task",
    "U_MUP": "theory.tables",
    "Verdict": "analysis.coordinates",
    "WeightNorm": "reparam.maps.weight_norm",
    "adopt_": "apply.adopt",
    "check_checkpoint": "apply.checkpoints",
    "check_schedule": "apply.schedules",
    "clip_grad_norm_": "apply.clipping",
    "convert": "compat.convert.convert",
    "coord_check": "check.run",
    "family": "theory.families",
    "fold_": "apply.parametrize",
    "init_": "apply.parametrize",
    "judge": "analysis.coordinates",
    "make_optimizers": "optim.make",
    "make_plan": "apply.parametrize",
    "parametrization": "theory.tables",
    "parametrize_": "apply.parametrize",
    "plan_of": "plan.on_model",
    "record": "check.callback",
    "remove_": "apply.parametrize",
    "reparametrize_": "reparam.reparametrize",
    "restore_": "apply.adopt",
    "schemes": "theory.schemes",
    "suggest": "apply.suggest",
    "transfer_run": "theory.horizon",
    "tune": "tuning.tune",
    "unreparametrize_": "reparam.reparametrize",
}
_MODULES = {
    "adapters": "adapters",
    "analysis": "analysis",
    "check": "check",
    "compat": "compat",
    "families": "theory.families",
    "hf": "apply.hf",
    "moe": "apply.moe",
    "nn": "nn",
    "optim": "optim",
    "reparam": "reparam",
    "rules": "theory.rules",
    "slurm": "slurm",
    "sweeps": "sweeps",
    "tables": "theory.tables",
}

__all__ = ["__version__", *sorted(_HOME), *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"paramz.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"paramz.{_MODULES[name]}")
    raise AttributeError(f"module 'paramz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
