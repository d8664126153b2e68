"""How long a trial has logged nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from paramz.sweeps.store.clock import Clock


@dataclass
class SignOfLife:
    """When the history of a trial last changed, by a clock that stands still in suspensions.

    The times of the file itself are those of a file server, whose clock may differ.
    """

    _clock: Clock = field(default_factory=Clock)
    _seen: tuple[int, int] | None = None
    _at: float = 0.0

    def silence(self, history: Path) -> float:
        """Seconds since the history last changed, or since the first look at it.

        Args:
            history: the file of the trial's history, which may not exist yet.
        """
        now = self._clock.seconds()
        try:
            found = os.stat(history)
        except OSError:
            pass
        else:
            if self._seen != (seen := (found.st_mtime_ns, found.st_size)):
                self._seen, self._at = seen, now
        return now - self._at
