"""Numbers, time spans, counts and signals as text for people."""

from __future__ import annotations

import signal
from collections.abc import Mapping


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "job"), counted(2, "job")
    ('1 job', '2 jobs')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def described(counts: Mapping[str, int]) -> str:
    """The number of trials with each status.

    >>> described({"failed": 1, "ok": 46})
    '46 ok, 1 failed'
    """
    order = ("ok", "diverged", "stopped", "failed", "interrupted")
    return ", ".join(f"{counts[name]} {name}" for name in order if counts.get(name)) or "none"


def duration(seconds: float) -> str:
    """A time span.

    >>> duration(8), duration(190), duration(7500)
    ('8s', '3m10s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def killed_by(number: int) -> str:
    """How a process ended that a signal has killed; signals for real-time use have no names.

    >>> killed_by(9), killed_by(40)
    ('killed by SIGKILL (out of memory?)', 'killed by signal 40')
    """
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"killed by {name}" + (" (out of memory?)" if number == signal.SIGKILL else "")
