"""How Shampoo takes a tensor: as matrices, cut into equal blocks that form one batch."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from paramz.optim.blocks import block_sizes


def matrix_shape(shape: tuple[int, ...], *, stacked: bool = False) -> tuple[int, int, int]:
    """A tensor's shape as (matrices, rows, columns).

    A vector is a matrix of one column, and the kernel of a convolution a matrix (out, in * area).

    Args:
        shape: of the tensor.
        stacked: the first of three axes counts experts, each of which is a matrix.

    >>> matrix_shape((8,)), matrix_shape((8, 4, 3, 3)), matrix_shape((2, 8, 4), stacked=True)
    ((1, 8, 1), (1, 8, 36), (2, 8, 4))
    """
    if stacked and len(shape) == 3:
        return shape[0], shape[1], shape[2]
    rows = shape[0] if shape else 1
    return 1, rows, math.prod(shape[1:])


def to_blocks(tensor: Tensor, shape: tuple[int, int, int], most: int) -> Tensor:
    """Cut a tensor into blocks, (blocks, rows, columns), of at most ``most`` rows and columns.

    Where the blocks do not divide the matrix evenly, the last ones are filled up with zeros. These
    change nothing: their gradients are zero, and so are their rows of the factors except for eps.

    Args:
        tensor: a tensor of any shape with as many entries as ``shape``.
        shape: from `matrix_shape`.
        most: the largest number of rows and columns of a block.

    >>> import torch
    >>> to_blocks(torch.ones(5, 4), (1, 5, 4), 3).shape
    torch.Size([4, 3, 2])
    """
    matrices, rows, columns = shape
    (m, high), (n, wide) = block_sizes(rows, most), block_sizes(columns, most)
    x = tensor.reshape(matrices, rows, columns)
    if (m * high, n * wide) != (rows, columns):
        x = F.pad(x, (0, n * wide - columns, 0, m * high - rows))
    if (m, n) == (1, 1):
        return x
    return x.view(matrices, m, high, n, wide).transpose(2, 3).reshape(-1, high, wide)


def from_blocks(blocks: Tensor, shape: tuple[int, int, int], most: int) -> Tensor:
    """The inverse of `to_blocks`, as (matrices, rows, columns).

    >>> import torch
    >>> x = torch.arange(20.0).view(1, 5, 4)
    >>> bool((from_blocks(to_blocks(x, (1, 5, 4), 3), (1, 5, 4), 3) == x).all())
    True
    """
    matrices, rows, columns = shape
    (m, high), (n, wide) = block_sizes(rows, most), block_sizes(columns, most)
    if (m, n) != (1, 1):
        blocks = blocks.view(matrices, m, n, high, wide).transpose(2, 3)
        blocks = blocks.reshape(matrices, m * high, n * wide)
    return blocks[:, :rows, :columns]
