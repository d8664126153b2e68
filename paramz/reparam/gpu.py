"""Where the GPU kernels are, if they can be had."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any


@cache
def kernels() -> Any:
    """The module of Triton kernels, or None where Triton is not installed.

    >>> kernels() is None or hasattr(kernels(), "normalize")
    True
    """
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("paramz.reparam.triton_kernels")
