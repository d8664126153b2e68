"""Joining a process group that does not hang at its end."""

from typing import Any

import torch
from torch import distributed as dist

# DDP's destructor ends the process group if it has the last reference, and waits, with the GIL, for
# gloo's threads. One of them may wait for the GIL, to let go of a reduced tensor (torch 2.13).
_kept: list[Any] = []


def join(rank: int, world: int, folder: str) -> None:
    """Meet the other processes by a file in a folder; compute on one thread."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    _kept.append(dist.group.WORLD)
