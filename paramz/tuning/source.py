"""What is tuned: a training function, a command, or a spec of either, and the task beside it."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paramz.sweeps.spec.command import holes
from paramz.sweeps.spec.config import Config, leaves
from paramz.sweeps.spec.spec import Sweep
from paramz.sweeps.spec.target import locate
from paramz.sweeps.spec.textfile import read_text
from paramz.sweeps.spec.values import ValueTextError, read_value

# What a spec may hold that tuning decides by itself, and the axes that it reads as wishes.
_DECIDED = ("refine", "halving", "budget", "axes", "base")


@dataclass(frozen=True)
class Source:
    """What is tuned.

    Attributes:
        fields: what the specs of all steps share: train or command, metrics, resources.
        task: name of the function that gives the model, for checks and plans; None for none.
        base: config values.
        axes: axes that the user's own spec asks for; they are kept.
        folder: where the paths of a command are looked up.
    """

    fields: Mapping[str, Any]
    task: str | None
    base: Config = field(default_factory=dict)
    axes: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def takes(self) -> frozenset[str] | None:
        """The values that reach the command; None for a function, which every value reaches."""
        words = self.fields.get("command")
        return None if words is None else frozenset(holes(_as_words(words)))

    def reached(self, name: str) -> bool:
        """Whether a value of the config can change anything."""
        return self.takes is None or name in self.takes

    def sweep(
        self, axes: Mapping[str, Any], base: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """The content of a spec with these axes.

        Args:
            axes: axes; those that do not reach the command are put into the base if they have one
                value.
            base: config values beside those that the source has.
            **more: other keys of a spec.
        """
        return {**self.fields, "base": {**self.base, **base}, "axes": dict(axes), **more}


def read_source(text: str, settings: Mapping[str, Any], task: str | None = None) -> Source:
    """What a user names: ``train.py:train``, ``train.py:task``, ``module:function`` or a spec.

    Args:
        text: the name or the path of the spec.
        settings: config values that replace those of the spec.
        task: name of the task function, where it is not called ``task`` beside the training
            function.

    Raises:
        ValueError: there is no such file or function, or the spec holds what tuning cannot use.
    """
    if text.endswith((".yaml", ".yml")):
        source = _of_spec(Path(text))
    else:
        train, beside = _pair(locate(text, Path.cwd()))
        source = Source({"train": train}, beside, folder=Path.cwd())
    if task is not None:
        source = replace(source, task=locate(task, Path.cwd()))
    return replace(source, base={**source.base, **settings})


def _of_spec(path: Path) -> Source:
    try:
        data = read_value(read_text(path))
    except ValueTextError as error:
        raise ValueError(f"{path}:{error.line}: {error.problem}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: a spec is a mapping; see docs/sweeps.md")
    known = set(Sweep.model_fields)
    if unknown := sorted(set(data) - known):
        raise ValueError(
            f"{path}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(known))}"
        )
    fields = {name: value for name, value in data.items() if name not in _DECIDED}
    folder = path.parent.absolute()
    task = None
    if "train" in fields:
        fields["train"], task = _pair(locate(str(fields["train"]), path.parent))
    elif "command" in fields:
        folder = Path(os.path.normpath(folder / str(fields.get("cwd") or "")))
        fields["cwd"] = str(folder)  # the specs of the steps lie elsewhere
    else:
        raise ValueError(f"{path}: it has neither train nor command, so there is nothing to tune")
    return Source(fields, task, dict(data.get("base") or {}), dict(data.get("axes") or {}), folder)


def _as_words(words: Any) -> list[str]:
    return [str(word) for word in words] if isinstance(words, list) else [str(words)]


def _pair(name: str) -> tuple[str, str | None]:
    """A training function and the task beside it, whichever of the two is named.

    A task takes a config; a training function takes a trial, too. One of a single argument is a
    task if it is called so or says that it returns one.
    """
    file, _, function = name.rpartition(":")
    if not file.endswith(".py"):
        return (f"{file}:train", name) if function == "task" else (name, None)
    tree = ast.parse(read_text(Path(file)))
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    tasks = [other for other, node in found.items() if _is_task(node)]
    node = found.get(function)
    if node is None or not _is_task(node):
        beside = f"{file}:task" if "task" in tasks or _imports(tree, "task") else None
        return name, beside
    if "train" not in found and not _imports(tree, "train"):
        trains = [other for other, node in found.items() if len(node.args.args) == 2]
        raise ValueError(
            f"{name} is a task, and {Path(file).name} has no function train(config, trial) beside "
            f"it that trains it; name the training function ({', '.join(trains) or 'none found'}) "
            f"and give the task with --task {Path(file).name}:{function}"
        )
    return f"{file}:train", name


def _imports(tree: ast.Module, name: str) -> bool:
    """Whether a file has a name from elsewhere."""
    froms = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return any(name == (alias.asname or alias.name) for node in froms for alias in node.names)


def _is_task(node: ast.FunctionDef) -> bool:
    returns = ast.unparse(node.returns) if node.returns else ""
    return len(node.args.args) == 1 and (node.name == "task" or returns.split(".")[-1] == "Task")


def flat(config: Mapping[str, Any]) -> Config:
    """The leaves of a config."""
    return leaves(config)
