"""Running sweeps on Slurm through submitit: profiles, packing, submission, queue and jobs.

Imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.slurm.packing import Packing, pack
    from paramz.slurm.profile import Profile
    from paramz.slurm.submission import Submission, submit

__all__ = ["Packing", "Profile", "Submission", "pack", "submit"]

_MODULES = {
    "Packing": "packing",
    "Profile": "profile",
    "Submission": "submission",
    "pack": "packing",
    "submit": "submission",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
