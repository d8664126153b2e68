"""Seeding the global generators of a worker, also of libraries that a trial imports on its way.

Seeds come from the trial's key, so that its numbers do not depend on which trials the same process
ran before it, nor on whether torch was imported before the trial or by it.
"""

import os
import random
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def seed(key: str) -> None:
    """Seed random, numpy and torch from a trial's key; also those that are imported later."""
    _Finder.seed = int(key[:8], 16)
    random.seed(_Finder.seed)
    for name in ("numpy", "torch"):
        if name in sys.modules:
            _settle(name, sys.modules[name], _Finder.seed)


def watch_imports() -> None:
    """Settle numpy and torch from now on at the moment that they are imported."""
    sys.meta_path.insert(0, _Finder())


def _settle(name: str, module: ModuleType, number: int) -> None:
    if name == "numpy":
        module.random.seed(number)
    else:
        module.manual_seed(number)
        module.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class _Finder(MetaPathFinder):
    """Finds numpy and torch as the other finders do, and settles them once they are executed."""

    seed = 0

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
                _settle(name, module, self.seed)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
