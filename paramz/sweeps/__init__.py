"""Sweeps: one training function at many configs. Imports no torch.

Three folders, each of which imports only those before it: ``spec`` (what is asked for), ``store``
(what is on disk) and ``running`` (how trials are run).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.sweeps.running.runner import run
    from paramz.sweeps.running.trial import Diverged, Trial
    from paramz.sweeps.spec.spec import Sweep
    from paramz.sweeps.store.store import Store
    from paramz.sweeps.store.table import load

__all__ = ["Diverged", "Store", "Sweep", "Trial", "load", "run"]

_MODULES = {
    "Diverged": "running.trial",
    "Store": "store.store",
    "Sweep": "spec.spec",
    "Trial": "running.trial",
    "load": "store.table",
    "run": "running.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
