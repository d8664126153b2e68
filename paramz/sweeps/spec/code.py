"""Which code a result is of: a hash of the training function's sources, and the commit.

The hash covers the file of the function and every module that it imports, directly or through
others, as long as these are the user's own: not the standard library, not installed packages, and
not paramz. The files are parsed for their imports, never run, and only names and contents count, so
that a moved project keeps its hash. Of a command, the Python files that it names are hashed like
that, and its words, and the shell's scripts and the configurations that it names as they are.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from paramz.sweeps.spec.command import Command, is_command
from paramz.sweeps.spec.config import leaves

_LENGTH = 16  # hex digits of the hash
_FUNCTION = re.compile(r"[\w./~-]+:[A-Za-z_]\w*")
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
# Of any interpreter: an environment may borrow another's packages (python -m venv
# --system-site-packages), and to read all of torch takes minutes.
_LIBRARIES = frozenset({"site-packages", "dist-packages"})
_ITSELF = __name__.partition(".")[0]


class Code(TypedDict):
    """Which code a result is of.

    Attributes:
        source: the hash of the sources; None if they cannot be read.
        commit: the commit of the folder that they are in; None outside of a repository.
        dirty: whether the repository had changes since that commit.
    """

    source: str | None
    commit: str | None
    dirty: bool


def code_of(target: str, config: Mapping[str, Any]) -> Code:
    """The code that a training function runs at a config.

    Args:
        target: the training function, ``/path/to/file.py:function`` or ``module:function``.
        config: the config, or values that all configs share. Functions that it names, as in
            ``task: lab/task.py:gpt``, count as sources, too.
    """
    return code_at(targets_of(target, config))


def targets_of(target: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The training function, and the functions that a config names.

    >>> targets_of("lab.py:train", {"task": "lab/task.py:gpt", "width": 64, "note": "a: b"})
    ('lab.py:train', 'lab/task.py:gpt')
    """
    named = {v for v in leaves(config).values() if isinstance(v, str) and _FUNCTION.fullmatch(v)}
    return (target, *sorted(named))


def code_at(targets: tuple[str, ...]) -> Code:
    """The code of some functions as it is now, see `code_of`."""
    commit, dirty = _commit(next(filter(None, map(_file_of, _functions(targets))), None))
    return {"source": source_at(targets), "commit": commit, "dirty": dirty}


def source_at(targets: tuple[str, ...]) -> str | None:
    """The hash of their sources alone; None if they cannot be read."""
    commands = [Command.parse(target) for target in targets if is_command(target)]
    sources = _sources(_functions(targets))
    sources |= {f"command {i}": command.identity() for i, command in enumerate(commands)}
    for command in commands:
        sources |= {name: path.read_bytes() for name, path in command.settings().items()}
    digest = hashlib.sha256()
    for name, content in sorted(sources.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:_LENGTH] if sources else None


def _functions(targets: tuple[str, ...]) -> list[str]:
    """The functions among some targets, and the scripts of the commands as functions."""
    commands = [Command.parse(target) for target in targets if is_command(target)]
    functions = [target for target in targets if not is_command(target)]
    return functions + [f"{script}:main" for each in commands for script in each.scripts()]


def _sources(targets: Iterable[str]) -> dict[str, bytes]:
    """The contents of all source files, by names that do not depend on where the project is."""
    found: dict[str, bytes] = {}
    for target in targets:
        file = _file_of(target)
        if file is None:
            continue
        # As with `python file.py`, the file's own folder is importable.
        roots = (file.parent, Path.cwd()) if _module(target).endswith(".py") else (Path.cwd(),)
        name = file.name if _module(target).endswith(".py") else _module(target)
        seen: set[Path] = set()
        waiting = [(name, file)]
        while waiting:
            name, path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            try:
                found[name] = content = path.read_bytes()
                tree = ast.parse(content)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # what cannot be parsed imports nothing
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for module in _imports(tree, "" if name.endswith(".py") else package):
                waiting += _files(module, roots)
    return found


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """The dotted names that a module imports; those after ``from`` may be modules as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            kept = above[: len(above) - node.level + 1] if node.level else []
            module = ".".join([*kept, *([node.module] if node.module else [])]).strip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if alias.name != "*")


def _files(module: str, roots: tuple[Path, ...]) -> list[tuple[str, Path]]:
    """The files that importing a module runs: its packages and itself, as far as they are ours."""
    parts = module.split(".")
    if not parts[0] or parts[0] == _ITSELF:
        return []
    for root in (*roots, *_homes(parts[0])):
        files = []
        for end in range(1, len(parts) + 1):
            stem = root.joinpath(*parts[:end])
            for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
                if path.is_file():
                    files.append((".".join(parts[:end]), path))
                    break
        if files or root.joinpath(parts[0]).is_dir():
            return files
    return []


@cache
def _homes(package: str) -> tuple[Path, ...]:
    """The folder that holds a package of the user's own which is on the import path."""
    if package in sys.stdlib_module_names:
        return ()
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return ()
    places = list(spec.submodule_search_locations or ()) if spec else []
    places += [spec.origin] if spec and spec.origin and spec.origin != "built-in" else []
    own = [place for place in places if not _is_installed(place)]
    return (Path(own[0]).parent,) if own else ()


def _is_installed(place: str) -> bool:
    return place.startswith(_INSTALLED) or not _LIBRARIES.isdisjoint(Path(place).parts)


def _file_of(target: str) -> Path | None:
    """The file that defines a function; None if it is not the user's own or not there."""
    module = _module(target)
    if module.endswith(".py"):
        path = Path(module).expanduser()
        return path.resolve() if path.is_file() else None
    found = _files(module, (Path.cwd(),))
    return found[-1][1] if found and found[-1][0] == module else None


def _module(target: str) -> str:
    return target.rpartition(":")[0]


def _commit(file: Path | None) -> tuple[str | None, bool]:
    """The commit of the folder of a file, and whether its repository has changes since then."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = file.parent if file else Path.cwd()
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None, False
    said = done.stdout.strip() if done.returncode == 0 else ""
    return said.removesuffix("-dirty") or None, said.endswith("-dirty")
