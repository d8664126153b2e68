"""Triton kernels of weight normalization and of the weight compander, for GPUs.

They were written without a GPU at hand. tests/reparam/test_reparam_triton.py runs them in Triton's
interpreter and compiles them for three GPUs; tests/reparam/test_reparam_gpu.py, which is skipped
without a GPU, has not been run.

Weights are taken as matrices with one row per output. One program works on one row, which it reads
once if the row fits a block. Sums are in float32.
"""

# mypy: ignore-errors
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _normalize(v, g, w, length, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(v + row * columns + at, at < columns, 0.0).to(tl.float32)
        total += x * x
    norm = tl.sqrt(tl.sum(total))
    tl.store(length + row, norm)
    factor = tl.load(g + row).to(tl.float32) / norm
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(v + row * columns + at, at < columns, 0.0).to(tl.float32)
        tl.store(w + row * columns + at, x * factor, at < columns)


@triton.jit
def _normalize_backward(dw, v, g, length, dv, dg, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(v + row * columns + at, at < columns, 0.0).to(tl.float32)
        d = tl.load(dw + row * columns + at, at < columns, 0.0).to(tl.float32)
        total += x * d
    norm = tl.load(length + row)
    along = tl.sum(total) / norm
    tl.store(dg + row, along)
    factor = tl.load(g + row).to(tl.float32) / norm
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(v + row * columns + at, at < columns, 0.0).to(tl.float32)
        d = tl.load(dw + row * columns + at, at < columns, 0.0).to(tl.float32)
        tl.store(dv + row * columns + at, factor * (d - x * (along / norm)), at < columns)


@triton.jit
def _atan(x):
    # On [0, 1]: halve the angle twice by x -> x / (1 + sqrt(1 + x^2)), after which x < 0.2 and six
    # terms of the series at 0 reach the precision of float32. Above 1: pi/2 - arctan(1/x).
    y = tl.abs(x)
    big = y > 1.0
    z = tl.where(big, 1.0 / tl.maximum(y, 1e-30), y)
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    s = z * z
    p = 1.0 / 9.0 - s * (1.0 / 11.0)
    p = 1.0 - s * (1.0 / 3.0 - s * (1.0 / 5.0 - s * (1.0 / 7.0 - s * p)))
    angle = 4.0 * z * p
    angle = tl.where(big, 1.5707963267948966 - angle, angle)
    return tl.where(x < 0.0, -angle, angle)


@triton.jit
def _compand(v, a, b, w, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(v + at, at < size, 0.0).to(tl.float32)
    bound, slope = tl.load(a).to(tl.float32), tl.load(b).to(tl.float32)
    tl.store(w + at, bound * _atan(x / slope), at < size)


@triton.jit
def _compand_backward(dw, v, a, b, dv, da, db, size, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(v + at, at < size, 0.0).to(tl.float32)
    d = tl.load(dw + at, at < size, 0.0).to(tl.float32)
    bound, slope = tl.load(a).to(tl.float32), tl.load(b).to(tl.float32)
    through = d * bound * slope / (slope * slope + x * x)
    tl.store(dv + at, through, at < size)
    # One partial sum per block, added up outside: the same result in every run.
    tl.store(da + block, tl.sum(d * bound * _atan(x / slope)))
    tl.store(db + block, -tl.sum(through * x))


def normalize(v: Tensor, g: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The weight, and the lengths of v in the shape of g, one per index of ``axis``."""
    if axis != 0:  # lengths per last axis: rows of the transpose
        w, length = normalize(v.movedim(axis, 0).contiguous(), g.movedim(axis, 0), 0)
        return w.movedim(0, axis).contiguous(), length.movedim(0, axis)
    v = v.contiguous()
    w = torch.empty_like(v)
    length = torch.empty(g.shape, dtype=torch.float32, device=v.device)
    columns = v[0].numel()
    with torch.cuda.device_of(v):
        _normalize[(len(v),)](v, g.contiguous(), w, length, columns, BLOCK=_BLOCK)
    return w, length


def normalize_backward(
    dw: Tensor, v: Tensor, g: Tensor, length: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """The gradients of v and g."""
    if axis != 0:
        first = [t.movedim(axis, 0).contiguous() for t in (dw, v, g, length)]
        dv, dg = normalize_backward(*first, 0)
        return dv.movedim(0, axis).contiguous(), dg.movedim(0, axis).contiguous()
    dw, v = dw.contiguous(), v.contiguous()
    dv, dg = torch.empty_like(v), torch.empty_like(g.contiguous())
    columns = v[0].numel()
    with torch.cuda.device_of(v):
        _normalize_backward[(len(v),)](
            dw, v, g.contiguous(), length.contiguous(), dv, dg, columns, BLOCK=_BLOCK
        )
    return dv, dg


def compand(v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The weight a arctan(v / b), where a and b have one entry each."""
    v = v.contiguous()
    w = torch.empty_like(v)
    with torch.cuda.device_of(v):
        _compand[_grid(v)](v, a, b, w, v.numel(), BLOCK=_BLOCK)
    return w


def compand_backward(dw: Tensor, v: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of v, log a and log b."""
    dw, v = dw.contiguous(), v.contiguous()
    dv = torch.empty_like(v)
    blocks = _grid(v)[0]
    da, db = (torch.empty(blocks, dtype=torch.float32, device=v.device) for _ in range(2))
    with torch.cuda.device_of(v):
        _compand_backward[(blocks,)](dw, v, a, b, dv, da, db, v.numel(), BLOCK=_BLOCK)
    return dv, da.sum().to(a.dtype).view_as(a), db.sum().to(b.dtype).view_as(b)


def _grid(v: Tensor) -> tuple[Any, ...]:
    return (triton.cdiv(v.numel(), _BLOCK),)
