"""Seeding the global random number generators of a worker, also of libraries imported later.

The seed comes from the trial's key. The numbers of a trial therefore depend neither on the trials
that the same process ran before, nor on whether torch was imported before the trial or by it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def seed(key: str, then: Callable[[str], None]) -> None:
    """Seed random, numpy and torch from the key of a trial.

    Those of them that are not imported yet are seeded when they are, after `watch_imports`.

    Args:
        key: the key of the trial.
        then: called with "numpy" and "torch" once they are imported and seeded.
    """
    _Finder.seed, _Finder.then = int(key[:8], 16), then
    random.seed(_Finder.seed)
    for name in ("numpy", "torch"):
        if name in sys.modules:
            _set_up(name, sys.modules[name], _Finder.seed)
            then(name)


def watch_imports() -> None:
    """From now on, seed numpy and torch at the moment that they are imported."""
    sys.meta_path.insert(0, _Finder())


def _set_up(name: str, module: ModuleType, number: int) -> None:
    if name == "numpy":
        module.random.seed(number)
    else:
        module.manual_seed(number)
        module.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class _Finder(MetaPathFinder):
    """Finds numpy and torch as the other finders do, and seeds them once they are executed."""

    seed = 0
    then: Callable[[str], None] = lambda name: None  # noqa: E731  # until a trial is seeded

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in ("numpy", "torch"):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _set_up(name, module, self.seed)
                type(self).then(name)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
