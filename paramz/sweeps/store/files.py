"""Small files that other processes and machines read while they are written.

One rule carries everything: a file appears whole under its name or not at all. It is written to a
name of its own, synced, and then linked or renamed. Permissions follow the user's umask.
"""

import os
import socket
import uuid
from pathlib import Path
from typing import Any

from pydantic_core import from_json

_CHUNK = 1 << 13  # results are below it; a large buffer is slow to allocate


def write_new(path: Path, text: str) -> bool:
    """Put a file in place unless one is there already; one of several writers wins.

    Returns:
        Whether this call made the file.

    Raises:
        OSError: If the disk is full or the like; nothing is left behind.
    """
    draft = _draft(path, text)
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)


def write_over(path: Path, text: str) -> None:
    """Put a file in place of whatever is there.

    Raises:
        OSError: If the disk is full or the like; the old file stays.
    """
    draft = _draft(path, text)
    try:
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _draft(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def read_bytes(path: str) -> bytes:
    """The content of a small file; a third of the time of Path.read_bytes, which counts at 1e5."""
    fd = os.open(path, os.O_RDONLY)
    try:
        content = os.read(fd, _CHUNK)
        while len(content) % _CHUNK == 0 and (more := os.read(fd, _CHUNK)):
            content += more
        return content
    finally:
        os.close(fd)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if it is missing or no whole JSON object."""
    try:
        found = from_json(read_bytes(str(path)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
