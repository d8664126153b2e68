"""What a group of K-FAC's may hold."""

from __future__ import annotations

from typing import Any

from paramz.anatomy.names import SHARDED_TENSOR


def check_group(group: dict[str, Any]) -> None:
    """Refuse a group with an option out of range, or with a tensor that K-FAC cannot train.

    Raises:
        ValueError: the message names the option, or the shape of the tensor.
    """
    for name in ("lr", "damping", "momentum", "weight_decay"):
        if not group[name] >= 0:
            raise ValueError(f"{name}={group[name]!r} must not be negative")
    for p in group["params"]:
        if p.is_complex():
            raise ValueError(
                f"K-FAC's factors are those of real tensors, and a parameter {tuple(p.shape)} is "
                "complex: give it to another optimizer (Plan.split_groups)"
            )
        if type(p.data).__name__ == SHARDED_TENSOR:
            raise ValueError(
                f"K-FAC needs whole tensors, and a parameter {tuple(p.shape)} is sharded: use "
                "DistributedDataParallel"
            )
