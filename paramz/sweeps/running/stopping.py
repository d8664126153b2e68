"""Requests to stop a pool, made by signals or by other threads."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """A request to stop.

    Attributes:
        requested: whether the pool is to stop.
        grace: seconds that running trials have to save themselves.
    """

    requested: bool = False
    grace: float = 30.0

    def request(self, grace: float | None = None) -> None:
        """Ask the pool to stop; running trials have `grace` seconds to save themselves."""
        self.requested = True
        self.grace = self.grace if grace is None else grace


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Stop]:
    """A request to stop that SIGINT and SIGTERM make while the context is active.

    After a second signal, trials have no time left to save themselves. Outside of the main thread
    signals cannot be handled, and the request is never made.

    Args:
        say: tells the user what happens.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            stop.request(grace=0.0)
        else:
            stop.request()
            say(
                "stopping; trials that can resume are saving checkpoints "
                "(a second signal ends them at once)"
            )

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
