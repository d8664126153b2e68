"""What a trial may change for its whole process, and what is put back when it ends.

A worker runs one trial after the other, and the numbers of a trial must not depend on those that
ran before it in the same process.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGALRM,
    signal.SIGCHLD,
)
# Functions of torch that read a setting, and those that change it.
_CALLS = (
    ("get_default_dtype", "set_default_dtype"),
    ("get_num_threads", "set_num_threads"),
    ("is_grad_enabled", "set_grad_enabled"),
    ("get_float32_matmul_precision", "set_float32_matmul_precision"),
    ("get_deterministic_debug_mode", "set_deterministic_debug_mode"),
    ("is_anomaly_enabled", "autograd.set_detect_anomaly"),
    ("backends.cuda.flash_sdp_enabled", "backends.cuda.enable_flash_sdp"),
    ("backends.cuda.math_sdp_enabled", "backends.cuda.enable_math_sdp"),
    ("backends.cuda.mem_efficient_sdp_enabled", "backends.cuda.enable_mem_efficient_sdp"),
    ("backends.cuda.cudnn_sdp_enabled", "backends.cuda.enable_cudnn_sdp"),
)
# Settings of torch that are read and assigned.
_ATTRIBUTES = (
    ("backends.cudnn", "enabled"),
    ("backends.cudnn", "benchmark"),
    ("backends.cudnn", "deterministic"),
    ("backends.cudnn", "allow_tf32"),
    ("backends.cuda.matmul", "allow_fp16_reduced_precision_reduction"),
    ("backends.cuda.matmul", "allow_bf16_reduced_precision_reduction"),
    ("backends.mkldnn", "enabled"),
    ("utils.deterministic", "fill_uninitialized_memory"),
)


class State:
    """The global state of this process when the object was made.

    Settings of numpy and torch are remembered by `read_library`, once they are imported.
    """

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._filters = list(warnings.filters)
        self._recursion = sys.getrecursionlimit()
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._arguments = list(sys.argv)
        self._logging = {logger: (*logger.handlers,) for logger in _loggers()}
        self._signals = {number: signal.getsignal(number) for number in _SIGNALS}
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        try:
            self._folder: str | None = os.getcwd()
        except OSError:  # it was deleted
            self._folder = None
        self._steps: list[Callable[[], None]] = []

    def read_library(self, name: str) -> None:
        """Remember the settings of numpy or torch, which has been imported."""
        module = sys.modules[name]
        self._steps += _steps_of_torch(module) if name == "torch" else _steps_of_numpy(module)

    def restore(self) -> None:
        """Put everything back that has changed."""
        if os.environ != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.path[:] = self._path
        warnings.filters[:] = self._filters  # type: ignore[index]
        sys.setrecursionlimit(self._recursion)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        sys.argv[:] = self._arguments
        _restore_logging(self._logging)
        signal.alarm(0)
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        os.umask(self._umask)
        if self._folder is not None:
            with suppress(OSError):
                os.chdir(self._folder)
        for put_back in self._steps:
            put_back()


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(each for each in known if isinstance(each, logging.Logger))]


def _restore_logging(before: Mapping[logging.Logger, tuple[logging.Handler, ...]]) -> None:
    """Take off the handlers that would send what later trials log into the files of this one.

    Of the root logger all that came: with one there, logging.basicConfig does nothing.
    """
    for logger in _loggers():
        for handler in [each for each in logger.handlers if each not in before.get(logger, ())]:
            if logger is logging.root or isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                with suppress(Exception):  # of any class
                    handler.close()


def _steps_of_numpy(numpy: Any) -> list[Callable[[], None]]:
    return [_step(numpy.geterr, lambda old: numpy.seterr(**old))]


def _steps_of_torch(torch: Any) -> list[Callable[[], None]]:
    """How to put the settings of torch back; those that its version does not have are left out."""
    steps = [
        _step(
            torch.get_default_device,
            lambda old: torch.set_default_device(None if old.type == "cpu" else old),
        ),
        _step(
            lambda: float(torch.full((), 1e-39, dtype=torch.float32, device="cpu")) == 0,
            torch.set_flush_denormal,
        ),
    ]
    for read, change in _CALLS:
        with suppress(AttributeError):
            steps.append(_step(_at(torch, read), _at(torch, change)))
    for place, name in _ATTRIBUTES:
        with suppress(AttributeError):
            owner = _at(torch, place)
            steps.append(_step(_reader(owner, name), _writer(owner, name)))
    return steps


def _step(read: Callable[[], Any], change: Callable[[Any], Any]) -> Callable[[], None]:
    """How to put a setting back to what it is now; it is touched only if it has changed."""
    old = read()

    def put_back() -> None:
        if read() != old:
            change(old)

    return put_back


def _reader(owner: Any, name: str) -> Callable[[], Any]:
    return lambda: getattr(owner, name)


def _writer(owner: Any, name: str) -> Callable[[Any], None]:
    return lambda value: setattr(owner, name, value)


def _at(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module
