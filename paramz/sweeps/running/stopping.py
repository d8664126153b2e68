"""Requests to stop a pool, made by signals or by other threads."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType


def _nothing(text: str) -> None:
    """Tell nobody."""


@dataclass
class Stop:
    """A request to stop.

    Attributes:
        requested: whether the pool is to stop.
        grace: seconds that running trials have to save themselves.
        say: tells the user what happens.
    """

    requested: bool = False
    grace: float = 30.0
    say: Callable[[str], None] = _nothing

    def request(self, grace: float | None = None) -> None:
        """Ask the pool to stop; running trials have `grace` seconds to save themselves."""
        self.requested = True
        self.grace = self.grace if grace is None else grace


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A request to stop that SIGINT, SIGTERM and SIGHUP make while the context is active.

    After a second signal, trials have no time left to save themselves; a third one raises
    KeyboardInterrupt, wherever the program is. SIGHUP (the terminal was closed) stays ignored under
    nohup. Outside of the main thread signals cannot be handled, and the request is never made.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.requested and not stop.grace:
            raise KeyboardInterrupt
        if stop.requested:
            stop.request(grace=0.0)
            return
        stop.request()
        with suppress(RuntimeError):  # the signal came while the program was writing a line
            stop.say(
                "stopping; trials that can resume are saving checkpoints "
                "(a second signal ends them at once)"
            )

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    before = {s: signal.signal(s, handle) for s in handled}
    try:
        yield stop
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
