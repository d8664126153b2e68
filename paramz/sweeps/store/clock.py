"""A clock that stands still while this process is suspended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

_LONGEST = 5.0  # seconds; whoever times a trial reads its clock twice a second


@dataclass
class Clock:
    """Seconds that have passed while this process ran.

    A process is suspended by Slurm (``scontrol suspend``), by Ctrl-Z, or together with its machine.
    The monotonic clock of Linux goes on in the first two cases. Here a longer gap between two
    readings counts as 5 seconds, so that a trial that was suspended does not exceed its limits.
    Changes of the date do not count at all.
    """

    _total: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Seconds since the clock was made, without suspensions."""
        now = time.monotonic()
        self._total += min(now - self._last, _LONGEST)
        self._last = now
        return self._total
