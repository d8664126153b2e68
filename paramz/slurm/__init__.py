"""Slurm through submitit: profiles, submission, queue, jobs. Imports no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.slurm.packing import Plan, make_plan
    from paramz.slurm.profile import Profile
    from paramz.slurm.submission import Submission, submit

__all__ = ["Plan", "Profile", "Submission", "make_plan", "submit"]

_HOME = {
    "Plan": "packing",
    "Profile": "profile",
    "Submission": "submission",
    "make_plan": "packing",
    "submit": "submission",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
