"""The logs of the index: every result once more, as a line that is appended.

::

    runs/<name>/index/<host>-<boot>.jsonl   lines of the processes of one machine
    runs/<name>/index/snapshot.npz          what was read of them (`paramz.sweeps.store.index`)

A line repeats a result and says of which file it is: by size and time of change. The files in
``results/`` remain the truth. A line may be missing, torn, repeated or out of date; the index
compares with the files whatever is in doubt. Each machine has a log of its own, because a network
file system may lose lines that two machines append to one file. Processes of one machine share it.
"""

from __future__ import annotations

import json
import os
import socket
from functools import cache
from pathlib import Path
from typing import Any

from paramz.sweeps.store.record import Record

_BOOT = Path("/proc/sys/kernel/random/boot_id")

Identity = tuple[int, int]
"""Size in bytes and time of change in nanoseconds, which tell a file from another of its name."""


def identity_of(path: str | Path) -> Identity | None:
    """What tells the file of a result from others of its name; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def result_line(record: Record, identity: Identity) -> str:
    """The line of a result."""
    kept = {name: value for name, value in record.items() if name != "traceback"}
    return _line({"id": identity, "record": kept})


def retired_line(key: str, identity: Identity) -> str:
    """The line of a result that was put aside."""
    return _line({"id": identity, "retired": key})


def append(root: Path, lines: list[str]) -> bool:
    """Append lines to the log of this machine.

    Returns:
        Whether they could be appended. If not, the index finds the results by their files.
    """
    path = root / "index" / log_name()
    content = "".join(lines).encode()
    try:
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
        try:
            return os.write(fd, content) == len(content)
        finally:
            os.close(fd)
    except OSError:
        return False


@cache
def log_name() -> str:
    """The name of this machine's log; machines of the same name have different boots."""
    try:
        boot = _BOOT.read_text()[:8]
    except OSError:
        boot = "0"
    return f"{socket.gethostname()}-{boot}.jsonl"


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"
