"""Sweeps: the spec, the trials, the runner and the store. Imports no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.sweeps.running.runner import run
    from paramz.sweeps.running.trial import Diverged, Trial
    from paramz.sweeps.spec.spec import Sweep
    from paramz.sweeps.store.store import Store, load

__all__ = ["Diverged", "Store", "Sweep", "Trial", "load", "run"]

_HOME = {
    "Diverged": "running.trial",
    "Store": "store.store",
    "Sweep": "spec.spec",
    "Trial": "running.trial",
    "load": "store.store",
    "run": "running.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
