"""How a long axis is cut into blocks of equal size, so that factors stay small."""

from __future__ import annotations


def block_sizes(length: int, most: int | None) -> tuple[int, int]:
    """The number of blocks along an axis, and their size, as equal as can be.

    Where the size of the blocks does not divide the length, the last block is filled up.

    Args:
        length: of the axis.
        most: the largest block; None for one block.

    >>> block_sizes(300, 256), block_sizes(256, 256), block_sizes(300, None)
    ((2, 150), (1, 256), (1, 300))
    """
    count = 1 if most is None else max(1, -(-length // most))
    return count, -(-length // count)
