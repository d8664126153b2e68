"""The module of GPU kernels, for tensors that they work on."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor


def kernels(v: Tensor) -> Any:
    """The module of Triton kernels for a tensor on a GPU; None for other tensors.

    The kernels compute in float32, so tensors of double precision are left to the formulas.

    >>> kernels(torch.ones(2)) is None
    True
    """
    return _module() if v.is_cuda and v.dtype != torch.float64 else None


@cache
def _module() -> Any:
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("paramz.reparam.kernels.triton_kernels")
