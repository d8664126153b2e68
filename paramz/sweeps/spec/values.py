"""Values as text: the one reader and writer for specs, profiles and the command line.

PyYAML implements YAML 1.1, where ``1e-3`` is a string and ``on`` means True. The loader here reads
scalars as YAML 1.2 does (its core schema), and the writer quotes every string that either version
would read as something else. The loader is a ``SafeLoader``: reading runs no code. What it reads is
bounded, so that no text, however small, takes long: nesting at `DEEPEST`, and the size after
aliases are filled in at `MOST`.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

DEEPEST = 40  # levels of nesting
MOST = 1_000_000  # values, with those counted again that an alias repeats


class ValueTextError(ValueError):
    """A text that is no YAML or exceeds a bound.

    Attributes:
        line: where, counted from 1.
        problem: what is wrong.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """A ``SafeLoader`` that reads scalars as YAML 1.2 does, and refuses deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, unless it is nested too deeply."""
        self.depth += 1
        if self.depth > DEEPEST:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise ValueTextError(line, f"nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """A ``SafeDumper`` that also quotes the strings which YAML 1.2 reads as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out, since a reader bounds aliases."""
        return True


_TAG = "tag:yaml.org,2002:"
_BREAKS = "\x85\u2028\u2029"  # line breaks of YAML 1.1, which are folded into spaces unless escaped
_BOOL, _FLOAT, _INT = (f"{_TAG}{kind}" for kind in ("bool", "float", "int"))
_REPLACED = (_BOOL, _FLOAT, _INT, f"{_TAG}timestamp", f"{_TAG}value")
_SIGNS = list("-+.0123456789")
# The first pattern that matches wins, so integers come before floats.
_PATTERNS = (
    (_BOOL, r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (_INT, r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", _SIGNS),
    (_FLOAT, r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", _SIGNS),
    (_FLOAT, r"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", list("-+.")),
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Dumper.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in _PATTERNS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _string(dumper: Any, text: str) -> Any:
    style = '"' if any(mark in text for mark in _BREAKS) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _string)


def _float(loader: Any, node: Any) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", node.value.lower()))


def _int(loader: Any, node: Any) -> int:
    text = node.value
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


_Dumper.add_multi_representer(float, yaml.SafeDumper.represent_float)  # those of numpy, too
_Loader.add_constructor(_FLOAT, _float)
_Loader.add_constructor(_INT, _int)


def compose(text: str) -> yaml.Node | None:
    """The node of a YAML text, with the lines that it is from; None if the text is empty.

    Raises:
        ValueTextError: the text is not YAML, has a list as a key, or exceeds a bound.
    """
    try:
        node: yaml.Node | None = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueTextError(line, f"not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueTextError(1, f"not valid YAML: {' '.join(str(error).split())}") from None
    if node is not None and _size(node, {}, ()) > MOST:
        raise ValueTextError(1, f"more than {MOST:,} values, with aliases filled in")
    return node


def construct(node: yaml.Node) -> Any:
    """The value of a node.

    Raises:
        ValueTextError: a scalar does not have the form that its tag asks for.
    """
    try:
        return _Loader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueTextError(line, f"not valid YAML: {error.problem}") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        line = node.start_mark.line + 1
        raise ValueTextError(line, f"a value cannot be read: {error}") from None


def read_value(text: str) -> Any:
    """The value that a text such as ``1e-8`` or ``[1, 2]`` stands for, as in a spec.

    Raises:
        ValueTextError: the text is not YAML or exceeds a bound.

    >>> read_value("1e-8"), read_value("on"), read_value("true"), read_value("[1, .5]")
    (1e-08, 'on', True, [1, 0.5])
    """
    node = compose(text)
    return None if node is None else construct(node)


def write_values(values: Any) -> str:
    r"""The text from which `read_value` reads equal values of equal types.

    >>> write_values({"lr": 1e-3, "tag": "1e-3", "word": "on"})
    "lr: 0.001\ntag: '1e-3'\nword: 'on'\n"
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Number of values in a node; that of an alias counts wherever it is used."""
    name = id(node)
    if name in above:
        raise ValueTextError(node.start_mark.line + 1, "an alias stands inside what it stands for")
    if name in known:
        return known[name]
    inside = (*above, name)
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise ValueTextError(line, "a key is a word or a number, not a list or a mapping")
        known[name] = 1 + sum(_size(value, known, inside) for _, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        known[name] = 1 + sum(_size(child, known, inside) for child in node.value)
    else:
        known[name] = 1
    return known[name]
