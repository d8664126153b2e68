"""What the verbs say on stderr: warnings, what takes long, errors of the file system in a line."""

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import typer

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


@contextmanager
def said_at_once() -> Iterator[None]:
    """Write warnings to stderr as they are made, each once and in a line.

    Those of other code than paramz, such as a user's, end with their file and line.
    """
    told = set()

    def show(message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:
        place = "" if filename.startswith(_PACKAGE) else f" ({filename}:{lineno})"
        line = f"warning: {message}{place}"
        if line not in told:
            told.add(line)
            typer.echo(line, err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def prints_aside() -> Iterator[None]:
    """Let a user's own code print to stderr; stdout is for what the verb finds.

    So do the programs that it starts, whose stdout is that of this process.
    """
    with _on_stderr() if sys.stdout else nullcontext(), redirect_stdout(sys.stderr):
        yield


@contextmanager
def _on_stderr() -> Iterator[None]:
    """Let whatever writes to this process's stdout, by its number, write to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with suppress(OSError):  # there is no stderr
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on a terminal what is going on as long as it does; nothing where stderr is none."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def reason(error: OSError) -> str:
    """Why the file system refused something, and what would help."""
    cures = {
        errno.EACCES: "you may not write there; choose another directory or ask its owner",
        errno.EPERM: "you may not write there; choose another directory or ask its owner",
        errno.EROFS: "the file system is read-only; choose another directory",
        errno.ENOTSUP: "results need them, so that no two processes write one; choose a directory "
        "on another file system",
        errno.ENOSPC: "the disk is full; what was written before is kept",
        errno.EDQUOT: "your quota is used up; what was written before is kept",
        errno.ENOENT: "it was removed meanwhile; the same command starts it again",
        errno.ENOTDIR: "a file stands where a folder should be",
        errno.EEXIST: "a file stands where a folder should be",
    }
    what = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    cure = cures.get(error.errno or 0)
    return f"{what}: {cure}" if cure else what
