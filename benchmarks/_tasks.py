"""The tasks of sweeps/ for benchmarks, and training steps of the byte-level GPT among them.

The GPT has about 5M parameters at width 256, in 6 blocks; a step takes 512 tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))
import train_lm as train_lm
import train_mlp as train_mlp

WIDTH, BASE, DEPTH, BATCH, CONTEXT = 256, 64, 6, 8, 64


def gpt(width: int) -> nn.Module:
    """The GPT at a width."""
    return train_lm.GPT(width, depth=DEPTH, context=CONTEXT)


def steps(
    model: nn.Module, optimizers: Sequence[Any], *, count: int = 1, compiled: bool = False
) -> Callable[[], None]:
    """A function that makes some training steps of a GPT, always on the same batches.

    Args:
        model: the GPT.
        optimizers: which together train all of it.
        count: how many steps a call makes, each on a batch of its own.
        compiled: compile the forward pass.
    """
    batches = [train_lm.batch_of(None, BATCH, CONTEXT, 0, step) for step in range(count)]
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        for x, y in batches:
            F.cross_entropy(forward(x).flatten(0, 1), y.flatten()).backward()
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)

    return run
