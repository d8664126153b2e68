"""Naming a training function by file path (`train_lm.py:train`) or dotted name (`lab.lm:train`)."""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def locate(target: str, folder: Path) -> str:
    """Make a training function's name independent of the working directory.

    Args:
        target: `path/to/file.py:function` or `package.module:function`.
        folder: Where a relative path is looked up first, before the working directory.

    Raises:
        ValueError: If the form is wrong, the file is missing or defines no such function.
            The file is parsed, not run.
    """
    module, _, name = target.rpartition(":")
    if not module or not name.isidentifier():
        raise ValueError(
            f"{target!r} names no function; write path/to/file.py:function or module:function"
        )
    if not module.endswith(".py"):
        return target
    places = [folder / module, Path.cwd() / module]
    for path in places:
        if path.is_file():
            break
    else:
        tried = " nor ".join(dict.fromkeys(str(path.parent) for path in places))
        raise ValueError(f"no file {Path(module).name} in {tried}")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}") from None
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    imported = any(isinstance(node, (ast.ImportFrom, ast.Assign, ast.If)) for node in tree.body)
    if name not in names and not (imported and name in path.read_text(encoding="utf-8")):
        raise ValueError(
            f"{path} defines no function {name!r}; it has: {', '.join(names) or 'none'}"
        )
    return f"{path.resolve()}:{name}"


def load_target(target: str) -> Callable[[dict[str, Any], Any], Any]:
    """Import a training function; the result always takes (config, trial).

    Raises:
        ImportError: If the module has no such function, or one of the wrong signature.
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
    """Import what `path/to/file.py:name` or `module:name` names; None if there is no such name.

    Raises:
        ImportError: If the module cannot be imported.
    """
    module_name, _, name = target.rpartition(":")
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
