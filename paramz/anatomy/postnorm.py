"""Norms that act on the sum of a residual block, read from the block's own code.

In ``x = norm(x + branch(x))`` the norm follows the sum, so it is no part of the branch and does not
end it. The same names stand for norms inside the branch elsewhere (``x = x + norm(branch(x))``), so
the code has to tell.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache

from torch import nn

from paramz.anatomy.paths import join


def norms_of_sums(block: nn.Module) -> set[str]:
    """Modules inside a block that its code applies to a sum which nothing else reads, by path.

    Code that cannot be read is taken to have none.
    """
    return {
        join(path, child)
        for path, module in block.named_modules()
        for child in _applied_to_sums(type(module))  # type: ignore[arg-type]
        if module._modules.get(child) is not None
    }


@cache
def _applied_to_sums(kind: type[nn.Module]) -> frozenset[str]:
    """Names of children that the forward of a class applies to sums."""
    try:
        source = textwrap.dedent(inspect.getsource(kind.forward))
        function = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    if not isinstance(function, ast.FunctionDef):
        return frozenset()
    statements = list(_simple(function.body))
    found = set()
    for i, statement in enumerate(statements):
        for call in ast.walk(statement):
            child = _child_called(call)
            if child is None or not isinstance(call, ast.Call) or not call.args:
                continue
            (argument, *_) = call.args
            if _is_sum(argument):
                found.add(child)
            elif isinstance(argument, ast.Name) and _only_use(statements, i, argument.id):
                found.add(child)
    return frozenset(found)


def _simple(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements in order, those of conditions and loops among them."""
    found: list[ast.stmt] = []
    for statement in body:
        inner = [
            part
            for field in ("body", "orelse", "finalbody")
            for part in getattr(statement, field, [])
            if isinstance(part, ast.stmt)
        ]
        found += _simple(inner) if inner else [statement]
    return found


def _child_called(call: ast.AST) -> str | None:
    """The name of the child that ``self.child(...)`` calls."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return None
    owner = call.func.value
    return call.func.attr if isinstance(owner, ast.Name) and owner.id == "self" else None


def _is_sum(value: ast.AST | None) -> bool:
    return isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add)


def _sums(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AugAssign):
        return isinstance(statement.op, ast.Add)
    return _is_sum(getattr(statement, "value", None))


def _only_use(statements: list[ast.stmt], at: int, name: str) -> bool:
    """Whether a name holds a sum at a statement, and that statement alone reads the sum."""
    before = next((i for i in range(at - 1, -1, -1) if name in _assigned(statements[i])), None)
    if before is None or not _sums(statements[before]):
        return False
    after = at
    while after < len(statements) and name not in _assigned(statements[after]):
        after += 1
    reads = sum(_reads(each, name) for each in statements[before + 1 : after + 1])
    return reads == 1


def _assigned(statement: ast.stmt) -> set[str]:
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _reads(statement: ast.stmt, name: str) -> int:
    return sum(
        isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id == name
        for node in ast.walk(statement)
    )
