"""The coordinate check: measure activations over widths, depths or numbers of experts.

Names load on first use: handing a check's jobs to other machines imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramz.analysis.coordinates import judge as judge
    from paramz.check.run import coord_check as coord_check

__all__ = ["coord_check", "judge"]

_HOME = {"coord_check": "paramz.check.run", "judge": "paramz.analysis.coordinates"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
