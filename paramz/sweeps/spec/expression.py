"""Arithmetic over the config of a trial, as in ``minutes: 2 + 30 * (width / 1024) ** 2``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "sqrt": math.sqrt,
    "log2": math.log2,
}


_LONGEST = 500  # characters: the parser recurses, and arithmetic that people write is short


@dataclass(frozen=True)
class Expression:
    """An arithmetic expression over the leaves of a config.

    Anything but arithmetic is refused when the expression is read, so that no spec can run code.

    Attributes:
        text: the expression as it was written.
        names: the config leaves that it uses.

    Raises:
        ValueError: the text is not an arithmetic expression.

    >>> Expression("2 + 30 * (width / 1024) ** 2")({"width": 512})
    9.5
    """

    text: str
    names: tuple[str, ...] = field(init=False)
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.text) > _LONGEST:
            start = f"{self.text[:40]}..."
            raise ValueError(
                f"{start!r} has {len(self.text)} characters, at most {_LONGEST} are read"
            )
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
            names = tuple(sorted(_check(tree, self.text)))
        except (SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"{self.text!r} is not an arithmetic expression") from None
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "names", names)

    def __call__(self, leaves: Mapping[str, Any]) -> float:
        """The value for one config, given as its leaves.

        Raises:
            ValueError: the config lacks a name that the expression uses, or the arithmetic fails.
        """
        for name in self.names:
            if name not in leaves:
                known = ", ".join(sorted(leaves))
                raise ValueError(f"{self.text!r} uses {name!r}; a config has: {known}")
        try:
            value = float(_evaluate(self._tree, leaves))
            if not math.isfinite(value):
                raise ValueError(f"it comes to {value:g}")
            return value
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{self.text!r} cannot be computed: {error}") from None


def _check(node: ast.expr, text: str) -> set[str]:
    """The config names in a tree; refuses all but numbers, names, operators and `_FUNCTIONS`."""
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return set()
        case ast.Name() | ast.Attribute():
            return {ast.unparse(node)}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _check(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _check(left, text) | _check(right, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return set().union(*(_check(arg, text) for arg in args))
    raise ValueError(
        f"{text!r}: {ast.unparse(node)!r} is not allowed; use numbers, names of config values, "
        f"+ - * / // % ** and {', '.join(_FUNCTIONS)}"
    )


def _evaluate(node: ast.expr, leaves: Mapping[str, Any]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)  # 9 ** 9 ** 9 overflows at once; with integers it takes for ever
        case ast.UnaryOp(op=op, operand=operand):
            inner = _evaluate(operand, leaves)
            return -inner if isinstance(op, ast.USub) else inner
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, leaves), _evaluate(right, leaves))
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name](*(_evaluate(arg, leaves) for arg in args))
    return float(leaves[ast.unparse(node)])
