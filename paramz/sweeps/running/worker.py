"""A worker process: imports the training function once and runs trials one after the other.

A pool starts it as ``python -m paramz.sweeps.running.worker FD TARGET``, so that its environment
(threads, GPU) is set before anything is imported, and so that the ``__main__`` module of the parent
is not imported a second time.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from paramz.sweeps.running.changed import begin
from paramz.sweeps.running.command import load
from paramz.sweeps.running.halving import Race, Stopped
from paramz.sweeps.running.messages import STOP, Ending, Order
from paramz.sweeps.running.parent import die_with_parent
from paramz.sweeps.running.redact import redact
from paramz.sweeps.running.seeding import seed, watch_imports
from paramz.sweeps.running.state import State
from paramz.sweeps.running.trial import Diverged, Trial, diverged, encoded
from paramz.sweeps.spec.code import code_at, targets_of
from paramz.sweeps.spec.config import Config
from paramz.sweeps.store.attempt import superseded

_ERROR_LENGTH = 500  # characters of an error message that are kept; the traceback has all of it


def main() -> None:
    """Run orders until the pool closes the connection."""
    die_with_parent()
    with suppress(OSError):
        os.dup2(2, 1)  # stdout is that of a report in JSON: no place for what an import prints
    os.set_inheritable(int(sys.argv[1]), False)  # what the trial starts must not keep it open
    connection = Connection(int(sys.argv[1]))
    _ignore_signals()
    watch_imports()
    try:
        function = load(sys.argv[2])
    except Exception as error:
        connection.send(("broken", redact(_why(error))))
        return
    connection.send(("ready", os.getpid()))
    tidy = Tidy()
    code_then = functools.cache(code_at)  # as it was imported, whatever becomes of the files
    while True:
        try:
            order: Order = connection.recv()
        except EOFError:
            return
        code = code_then(targets_of(sys.argv[2], order.config))
        source = code["source"]
        if order.rank == 0:
            code = begin(order.directory, sys.argv[2], code)
        connection.send(("done", perform(order, function, source) | {"code": code}))
        tidy()


def _why(error: Exception) -> str:
    """Why a training function cannot be imported: the lines of the user's code that lead there."""
    package = str(Path(__file__).parents[2])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((package, "<frozen"))
    ]
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "the training function cannot be imported:\n" + "".join(lines).rstrip()


def perform(order: Order, function: Callable[[Config, Trial], Any], source: str | None) -> Ending:
    """Run one trial in this process, with its output going to ``log.txt`` in its directory.

    Args:
        order: the trial.
        function: the training function.
        source: the hash of its code.
    """
    limit = order.limits.loss_limit
    trial = Trial(order.directory, order.key, order.attempt, limit, order.rank)
    log = f"log.{order.rank}.txt" if order.rank else "log.txt"
    state = State()
    seed(order.key, state.read_library)
    try:
        with _output_to(order.directory / log):
            signal.signal(STOP, trial._stop)
            signal.signal(signal.SIGCONT, _end_if_superseded(order))
            outcome = _run(order, trial, function, source)
    except OSError as error:  # the disk has no room for a log
        outcome = _outcome("failed", f"{type(error).__name__}: {error}")
    finally:
        signal.signal(STOP, signal.SIG_DFL)
        state.restore()
    return outcome


class Tidy:
    """Collects what a trial left behind, without looking at what its modules hold.

    Modules stay, and of those that torch loads there are 400,000 objects, through which a
    collection takes 0.2 s. They are set aside whenever modules have come.
    """

    def __init__(self) -> None:
        self._modules = 0

    def __call__(self) -> None:
        """Collect, after a trial."""
        loaded = len(sys.modules)
        if loaded == self._modules:
            gc.collect()
            return
        gc.unfreeze()  # what was set aside may be garbage by now
        gc.collect()
        gc.freeze()
        self._modules = loaded


def _end_if_superseded(order: Order) -> Callable[[int, FrameType | None], None]:
    """What to do when this process goes on after a suspension, in which others hear nothing of it.

    If another process has taken over the trial meanwhile, nothing more may be written here.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        if superseded(order.directory, order.attempt):
            os._exit(128 + signum)

    return end


def _run(
    order: Order, trial: Trial, function: Callable[[Config, Trial], Any], source: str | None
) -> Ending:
    try:
        if order.limits.halving and order.rank == 0:
            root, rule = order.directory.parents[1], order.limits.halving
            trial.race = Race(root, order.key, order.config, **rule, code=source)  # type: ignore[arg-type]
        outcome = _classify(function(order.config, trial), trial)
    except Diverged as error:
        outcome = _outcome("diverged", str(error), metrics={"loss": float("nan")})
    except Stopped as error:
        outcome = _outcome("stopped", str(error), metrics={"loss": float("nan")})
    except BaseException as error:  # the process lives on, whatever a trial raises
        text = "".join(traceback.format_exception_only(error)).strip()
        outcome = _outcome("failed", text, redact(traceback.format_exc()))
        print(outcome["traceback"], file=sys.__stderr__)  # whatever the trial has put in its place
    if trial.race:
        trial.race.finish(outcome["status"], outcome["metrics"].get("loss"))
    return outcome


def _classify(returned: Any, trial: Trial) -> Ending:
    """The outcome that the returned value of a training function stands for."""
    if trial._stopping:
        return _outcome("interrupted", "stopped to be resumed later")
    if trial.rank:  # rank 0 alone is recorded; the others often return nothing
        return _outcome("ok", None)
    if not isinstance(returned, dict) or "loss" not in returned:
        got = f"keys {sorted(returned)}" if isinstance(returned, dict) else type(returned).__name__
        return _outcome(
            "failed", f"the training function must return metrics with 'loss', got {got}"
        )
    metrics, texts = {}, {}
    for name, value in returned.items():
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            if name == "loss":
                return _outcome("failed", f"the returned loss is not a number: {error}")
            texts[str(name)] = redact(str(value))[:_ERROR_LENGTH]
    if texts:
        print(
            f"returned values that are no numbers: {', '.join(map(repr, texts))}. They are kept in "
            "the file of the result under texts, and are in no table",
            file=sys.__stderr__,
        )
    return _judged(metrics, trial) | ({"texts": texts} if texts else {})


def _judged(metrics: dict[str, float], trial: Trial) -> Ending:
    if diverged(metrics["loss"], trial.loss_limit):
        return _outcome("diverged", f"loss {metrics['loss']:g}", metrics=metrics)
    return _outcome("ok", None, metrics=metrics)


def _outcome(
    status: str,
    error: str | None,
    trace: str | None = None,
    metrics: dict[str, float] | None = None,
) -> Ending:
    return {
        "status": status,
        "error": redact(error)[:_ERROR_LENGTH] if error else None,
        "traceback": trace,
        "metrics": encoded(metrics or {}),
    }


class _output_to:
    """Append the stdout and stderr of this process, also those of C code, to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.saved = os.dup(1), os.dup(2)
        fd = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            # The disk is full, or the trial has put a stream of its own there and closed it; a log
            # that is cut short does not spoil the result.
            with suppress(Exception):
                stream.flush()  # type: ignore[union-attr]
        for number, saved in zip((1, 2), self.saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)


def _ignore_signals() -> None:
    """Ignore the signals that Slurm sends to every process of a job; the pool decides what to do.

    They are not ignored in processes that are forked from this one, such as those of a data loader.
    """
    worker = os.getpid()

    def ignore(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != worker:
            os._exit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(signum, ignore)


if __name__ == "__main__":
    main()
