"""Finding a training function by its name: ``path/to/train_lm.py:train`` or ``lab.lm:train``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.textfile import read_text

# Stores and Slurm orders keep the name that a function of paramz had when they were written.
_FORMER_NAMES = {
    "paramz.check_sweep:measure_trial": "paramz.check.sweep:measure_trial",
}


def present_name(target: str) -> str:
    """The name that a function has today; a function of paramz may have moved since.

    >>> present_name("paramz.check_sweep:measure_trial"), present_name("lab.lm:train")
    ('paramz.check.sweep:measure_trial', 'lab.lm:train')
    """
    return _FORMER_NAMES.get(target, target)


def locate(target: str, folder: Path) -> str:
    """Make the name of a training function independent of the working directory.

    The file of the function is parsed, but not run.

    Args:
        target: ``path/to/file.py:function`` or ``package.module:function``.
        folder: where a relative path is looked up first, before the working directory.

    Returns:
        ``/absolute/path/to/file.py:function``, or the dotted name as it was given.

    Raises:
        ValueError: the name has neither form, the file is missing, or it defines no such function.
    """
    target = present_name(target)
    module, _, name = target.rpartition(":")
    if not module or not name.isidentifier():
        hint = (
            ". A script that trains when it is run is a command: [python, train.py, ...] in a spec "
            "(docs/tutorials/own_script.md), or paramz check --command 'python train.py ...'"
        )
        raise ValueError(
            f"{target!r} names no function; write path/to/file.py:function or module:function"
            + (hint if target.endswith(".py") else "")
        )
    if not module.endswith(".py"):
        return target
    places = [folder / module, Path.cwd() / module]
    try:
        path = next(path for path in places if path.is_file())
    except StopIteration:
        tried = " or ".join(dict.fromkeys(str(path.parent) for path in places))
        raise ValueError(f"no file {Path(module).name} in {tried}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{module!r} cannot be looked up: {error}") from None
    text = read_text(path)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise ValueError(f"{path} is not Python that can be parsed: {error}") from None
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    imported = any(isinstance(node, (ast.ImportFrom, ast.Assign, ast.If)) for node in tree.body)
    if name not in names and not (imported and name in text):
        raise ValueError(
            f"{path} defines no function {name!r}; it has: {', '.join(names) or 'none'}"
        )
    return f"{path.resolve()}:{name}"


def load_target(target: str) -> Callable[[dict[str, Any], Any], Any]:
    """Import a training function; what is returned always takes ``(config, trial)``.

    Raises:
        ImportError: the module has no such function, or the function takes neither one argument
            nor two.
    """
    function = load_object(target)
    if not callable(function):
        module_name, _, name = target.rpartition(":")
        raise ImportError(f"{module_name} defines no function {name!r}")
    arity = len(inspect.signature(function).parameters)
    if arity not in (1, 2):
        raise ImportError(
            f"{target} takes {arity} arguments; a training function takes (config) or "
            "(config, trial)"
        )
    if arity == 1:
        return lambda config, trial: function(config)
    return function  # type: ignore[no-any-return]


def load_object(target: str) -> Any:
    """Import the object called ``path/to/file.py:name`` or ``module:name``.

    Returns:
        The object; None if the module does not have the name.

    Raises:
        ImportError: the module cannot be imported.
    """
    module_name, _, name = present_name(target).rpartition(":")
    if module_name.endswith(".py"):
        path = Path(module_name)
        # As with `python file.py`, the file's own folder is importable.
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, "")
        module = importlib.import_module(module_name)
    return getattr(module, name, None)
