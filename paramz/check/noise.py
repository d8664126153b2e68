"""One fixed noise for all forward passes of a run, so that what changes is the weights' doing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class RandomState:
    """The state of all that draws random numbers in a process: of torch, Python and NumPy."""

    cpu: torch.Tensor
    cuda: list[torch.Tensor]
    python: Any
    arrays: Any

    @classmethod
    def now(cls) -> RandomState:
        """The present state."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), cuda, random.getstate(), np.random.get_state())

    def restore(self) -> None:
        """Make it the present state again."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.python)
        np.random.set_state(self.arrays)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers again; afterwards the state is what it was before."""
        now = RandomState.now()
        self.restore()
        try:
            yield
        finally:
            now.restore()


@dataclass(frozen=True)
class Noise:
    """The noise of a run: dropout, dropped labels or layers, whatever forward and loss draw.

    Attributes:
        seed: of every forward pass.
        own: generators that modules hold, with their states at the start of the run.
    """

    seed: int
    own: tuple[tuple[torch.Generator, torch.Tensor], ...]

    @classmethod
    def of(cls, model: nn.Module, seed: int) -> Noise:
        """The noise of a model that was not run yet."""
        held = (value for module in model.modules() for value in vars(module).values())
        return cls(seed, tuple((g, g.get_state()) for g in held if isinstance(g, torch.Generator)))

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Draw the numbers of this noise, without moving the process's own random state."""
        before = RandomState.now()
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        for generator, state in self.own:
            generator.set_state(state)
        try:
            yield
        finally:
            before.restore()


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off, whose noise would be taken for change; all else stays in train mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
