"""Reading a text file that a user named, whatever is there."""

from __future__ import annotations

import stat
from pathlib import Path

LARGEST = 16 * 2**20  # bytes; far above any spec, and small enough to be read at once


class TextError(ValueError):
    """A file that cannot be read as text; the message names it."""


def read_text(path: str | Path) -> str:
    """The text of a file.

    Only plain files are read: a pipe that nobody writes to would be waited for without end.

    Raises:
        TextError: it is missing, no plain file, larger than `LARGEST`, not UTF-8, or may not be
            read.

    >>> read_text("/dev/null")
    Traceback (most recent call last):
    paramz.sweeps.spec.textfile.TextError: /dev/null: not a plain file
    """
    try:
        kind = Path(path).stat()
        if stat.S_ISDIR(kind.st_mode):
            raise TextError(f"{path}: a folder, not a file")
        if not stat.S_ISREG(kind.st_mode):
            raise TextError(f"{path}: not a plain file")
        if kind.st_size > LARGEST:
            raise TextError(
                f"{path}: {kind.st_size / 2**20:.0f} MB; at most {LARGEST >> 20} MB are read"
            )
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path}: not text in UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except OSError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"{str(path)!r}: no name of a file: {error}") from None
