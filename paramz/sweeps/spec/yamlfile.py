"""Reading YAML into a pydantic model, with the file and line of every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from paramz.sweeps.spec.textfile import TextError, read_text
from paramz.sweeps.spec.values import ValueTextError, compose, construct

Model = TypeVar("Model", bound=BaseModel)

_SHOWN = 40  # mistakes that a message lists


class SpecError(ValueError):
    """A spec or profile that cannot be used; every line of the message names file and line."""


def read_model(path: Path, model: type[Model], context: dict[str, Any] | None = None) -> Model:
    """Read a YAML file into a pydantic model.

    Args:
        path: the file.
        model: the pydantic model that the file must satisfy.
        context: passed to the validators of the model.

    Raises:
        SpecError: the file is missing, is not YAML, repeats a key, or does not satisfy the model.
            Every mistake stands on a line of its own, which starts with ``file:line:``.
    """
    try:
        root = compose(read_text(path))
        if root is None:
            raise SpecError(f"{path}: the file is empty")
        if repeated := _repeated_keys(root):
            raise SpecError(
                _listed(path, [(line, f"key {k!r} is given twice") for line, k in repeated])
            )
        data = construct(root)
    except TextError as error:
        raise SpecError(str(error)) from None
    except ValueTextError as error:
        raise SpecError(f"{path}:{error.line}: {error.problem}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}:1: expected a mapping of keys, got {type(data).__name__}")
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        found = []
        for item in error.errors():
            line, where = _locate(root, item["loc"])
            found.append((line, _sentence(item, where, model)))
        raise SpecError(_listed(path, found)) from None


def _sentence(item: Any, where: str, model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return f"unknown key {where!r}" + (f"; known keys: {', '.join(known)}" if known else "")
    if item["type"] == "missing" and isinstance(item["loc"][-1], int):
        return f"{where}: value {item['loc'][-1] + 1} of the list is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a location; none if the value there is not a model."""
    here: Any = model
    for part in loc:
        field = here.model_fields.get(part)
        here = field.annotation if field else None
        if not (isinstance(here, type) and issubclass(here, BaseModel)):
            return []
    return list(here.model_fields)


def _listed(path: Path, found: list[tuple[int, str]]) -> str:
    lines = [f"{path}:{line}: {text}" for line, text in sorted(found)]
    rest = [f"{path}: and {len(lines) - _SHOWN} more mistakes"] if len(lines) > _SHOWN else []
    return "\n".join(lines[:_SHOWN] + rest)


def _locate(root: yaml.Node, loc: tuple[Any, ...]) -> tuple[int, str]:
    """The line of an error and the dotted path of the key.

    Pydantic's location also has parts that are not in the file, such as the tag of a union.
    """
    node, line, where = root, root.start_mark.line + 1, []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    node, line = value, key.start_mark.line + 1
                    where.append(str(part))
                    break
        elif (
            isinstance(node, yaml.SequenceNode)
            and isinstance(part, int)
            and part < len(node.value)  # what is missing is the place after the last
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
            where.append(str(part))
    if not where and loc:
        where = [str(loc[-1])]
    return line, ".".join(where)


def _repeated_keys(node: yaml.Node) -> list[tuple[int, str]]:
    """Line and name of every key that its mapping has already."""
    found: list[tuple[int, str]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                found.append((key.start_mark.line + 1, key.value))
            seen.add(key.value)
            found += _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            found += _repeated_keys(child)
    return found
