"""Small files that other processes and machines may read at any moment.

Everything relies on one rule: a file appears under its name whole or not at all. It is written
under a temporary name, synced to disk, and then linked or renamed. Permissions follow the user's
umask.
"""

from __future__ import annotations

import errno
import os
import socket
import uuid
from pathlib import Path
from typing import Any

from pydantic_core import from_json

_CHUNK = 1 << 13  # bytes; most results are smaller, and allocating a larger buffer takes longer


def write_new(path: Path, text: str) -> bool:
    """Write a file unless it exists already; of several writers, exactly one succeeds.

    Returns:
        Whether this call created the file.

    Raises:
        OSError: the file cannot be written, for example because the disk is full. Nothing is left
            behind.
    """
    draft = _draft(path, text)
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)


def require_links(folder: Path) -> None:
    """Refuse a folder whose file system has no hard links, by which `write_new` names files.

    Raises:
        OSError: ENOTSUP, on FAT and some network and FUSE file systems. Whether files can be
            written at all is found out elsewhere.
    """
    first, second = (folder / f".{uuid.uuid4().hex}.tmp" for _ in range(2))
    try:
        first.touch()
    except OSError:
        return
    try:
        os.link(first, second)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise OSError(errno.ENOTSUP, "No hard links there", str(folder)) from None
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def write_over(path: Path, text: str) -> None:
    """Write a file, replacing the one that is there.

    Raises:
        OSError: the file cannot be written, for example because the disk is full. The old file
            stays.
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
    """The content of a small file, in a third of the time that ``Path.read_bytes`` takes.

    The difference matters when a sweep has 100,000 results.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        content = os.read(fd, _CHUNK)
        while len(content) % _CHUNK == 0 and (more := os.read(fd, _CHUNK)):
            content += more
        return content
    finally:
        os.close(fd)


def last_lines(path: Path, number: int) -> list[str]:
    """The last lines of a file of any size; none if there is no such file.

    At most a MiB is read, or a KiB for each line, however long the lines are.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - max(1 << 20, number << 10)))
            return file.read().decode("utf-8", "replace").splitlines()[-number:]
    except FileNotFoundError:
        return []


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file is missing or holds anything else."""
    try:
        found = from_json(read_bytes(str(path)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
