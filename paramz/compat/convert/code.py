"""Read Python source that uses mup or unit-scaling: what each use becomes, by file and line.

The source is parsed, not run. Names are followed through imports (``import mup as m``,
``from mup.init import normal_ as n``), so nothing is found that merely has the same name.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paramz.anatomy.names import LOGIT_SCALES, MUP_SHAPE
from paramz.compat.convert.calls import MUP_NAMES, equivalent
from paramz.sweeps.spec.textfile import read_text

PACKAGES = {"mup": "paramz.compat.mup", "unit_scaling": "paramz.compat.unit_scaling"}

_SETTINGS = (".sh", ".yaml", ".yml", ".json", ".slurm", ".sbatch")

# Folders that hold no code of the project.
_SKIPPED = {"site-packages", "node_modules", "build", "dist", "__pycache__", "venv", "env"}


@dataclass(frozen=True)
class Finding:
    """One use of what is to be replaced.

    Attributes:
        file, line: where it is; line 0 where there is no line.
        found: the source, or the setting.
        becomes: the paramz equivalent; empty if there is nothing left to write.
        why: what changes.
    """

    file: str
    line: int
    found: str
    becomes: str
    why: str


def scan(path: Path) -> list[Finding]:
    """Everything in a file, or in the files of a folder, that uses mup or unit-scaling.

    In a folder, Python files and notebooks are read; base shape files, and scripts or configs with
    muP settings, are only listed, with the command that converts them.

    Raises:
        ValueError: a file given by name is not valid Python; the message says where.
    """
    if not path.is_dir():
        try:
            return scan_source(_python(path), path.name)
        except SyntaxError as error:
            raise ValueError(f"{path}:{error.lineno}: {error.msg}") from None
    found = []
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if any(part in _SKIPPED or part.startswith(".") for part in parts):
            continue
        name = str(file.relative_to(path))
        try:
            if file.suffix in (".py", ".ipynb"):
                found += scan_source(_python(file), name)
            elif file.suffix == ".bsh":
                found.append(Finding(name, 0, "base shapes", f"paramz convert {file}", "by tensor"))
            elif file.suffix in _SETTINGS and file.stat().st_size < 1_000_000:
                found += _settings(file, name)
        except (SyntaxError, ValueError, OSError) as error:
            line = error.lineno or 0 if isinstance(error, SyntaxError) else 0
            found.append(Finding(name, line, "", "", f"not read: {error}"))
    return found


def _python(file: Path) -> str:
    """The source of a file, or the code of a notebook, with its shell commands left blank."""
    text = read_text(file)
    if file.suffix != ".ipynb":
        return text
    try:
        cells = json.loads(text).get("cells", [])
        code = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is no notebook that can be read: {error}") from None
    return re.sub(r"^\s*[%!].*$", "", "\n".join(code), flags=re.MULTILINE)


def _settings(file: Path, name: str) -> list[Finding]:
    """The first line of a script or config that sets muP, if there is one."""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if re.search(r"\b(use[-_]mup|mup[-_]base[-_]hidden[-_]size|scaling[-_]recipe)\b", line):
            return [Finding(name, number, line.strip(), f"paramz convert {file}", "muP settings")]
    return []


def scan_source(source: str, file: str = "<string>") -> list[Finding]:
    r"""Everything in a text that uses mup or unit-scaling; see `scan`.

    >>> for one in scan_source("from mup import MuAdam\nMuAdam(net.parameters(), lr=0.1)"):
    ...     print(one.line, one.becomes)
    1 from paramz.compat.mup import MuAdam
    2 torch.optim.Adam(plan.param_groups(net, 'adam', lr=0.1))
    """
    visitor = _Visitor(file)
    try:
        visitor.visit(ast.parse(source))
    except (RecursionError, MemoryError):
        raise ValueError(f"{file} is nested too deeply to be parsed") from None
    return sorted(visitor.found, key=lambda one: one.line)


class _Visitor(ast.NodeVisitor):
    def __init__(self, file: str) -> None:
        self.file = file
        self.names: dict[str, str] = {}  # local name -> dotted name in a package
        self.found: list[Finding] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            package = alias.name.partition(".")[0]
            if package in PACKAGES:
                local = alias.asname or package
                self.names[local] = alias.name if alias.asname else package
                # `import mup.init` binds mup; the package here has imported its parts.
                inner = alias.name.removeprefix(package) if alias.asname else ""
                becomes = f"import {PACKAGES[package]}{inner} as {local}"
                self._import(node, becomes, package)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        package = module.partition(".")[0]
        if package not in PACKAGES or node.level:
            return
        for alias in node.names:
            if alias.name == "*":
                self.names.update({name: f"{module}.{name}" for name in MUP_NAMES})
            else:
                self.names[alias.asname or alias.name] = f"{module}.{alias.name}"
        here = PACKAGES[package] + module.removeprefix(package)
        names = ", ".join(ast.unparse(alias) for alias in node.names)
        self._import(node, f"from {here} import {names}", package)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.attr for target in node.targets if isinstance(target, ast.Attribute)]
        text = ast.unparse(node.value)
        if self._uses("mup") and any(name in LOGIT_SCALES for name in names):
            if " / " in text and "sqrt" not in text and "0.5" not in text:
                self._add(
                    node,
                    "",
                    "with parametrize_ write 1/sqrt(d_head) here, which it turns into 1/d_head of "
                    "the same size at the base; 1/d_head would be scaled once more",
                )
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        dotted = self._dotted(node.func)
        if dotted is None:
            self.generic_visit(node)
            return
        self._use(node, dotted, node)
        for child in [*node.args, *node.keywords]:
            self.visit(child)

    def visit_Name(self, node: ast.Name) -> None:
        dotted = self._dotted(node) if isinstance(node.ctx, ast.Load) else None
        if dotted is not None:
            self._use(node, dotted, None)

    def visit_Constant(self, node: ast.Constant) -> None:
        if node.value == MUP_SHAPE and self._uses("mup"):
            self._add(node, "", "nothing is kept on parameters: ask paramz.plan_of(model)")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        dotted = self._dotted(node)
        if dotted is not None:
            self._use(node, dotted, None)
            return
        if node.attr == MUP_SHAPE and self._uses("mup") and isinstance(node.ctx, ast.Store):
            self._add(node, "", "the drop-in uses it; parametrize_ takes roles={name: Axes(...)}")
        elif node.attr == MUP_SHAPE and self._uses("mup"):
            self._add(
                node,
                f"paramz.compat.mup.infshape_of({ast.unparse(node.value)})",
                "nothing is kept on parameters; paramz.plan_of(model).rows has the same by name",
            )
        self.generic_visit(node)

    def _uses(self, package: str) -> bool:
        return any(dotted.partition(".")[0] == package for dotted in self.names.values())

    def _dotted(self, node: ast.expr) -> str | None:
        """The dotted name that an expression refers to; None if it is in neither package."""
        if isinstance(node, ast.Name):
            found = self.names.get(node.id)
            return found if found not in PACKAGES else None
        parts = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in self.names and parts:
            return ".".join([self.names[inner.id], *reversed(parts)])
        return None

    def _use(self, node: ast.expr, dotted: str, call: ast.Call | None) -> None:
        becomes, why = equivalent(dotted, call)
        self._add(node, becomes, why)

    def _import(self, node: ast.stmt, becomes: str, package: str) -> None:
        self._add(node, becomes, f"drop-in: the rest of the file may stay as {package} has it")

    def _add(self, node: ast.AST, becomes: str, why: str) -> None:
        line = getattr(node, "lineno", 0)
        self.found.append(Finding(self.file, line, ast.unparse(node), becomes, why))


def lines(findings: list[Finding]) -> Iterator[str]:
    r"""Findings as text, file by file.

    >>> print("\n".join(lines([Finding("a.py", 3, "MuReadout(8, 2)", "nn.Linear(8, 2)", "why")])))
    a.py:3: MuReadout(8, 2)
        -> nn.Linear(8, 2)
        why
    """
    for one in findings:
        where = f"{one.file}:{one.line}" if one.line else one.file
        yield f"{where}: {one.found}"
        if one.becomes:
            yield f"    -> {one.becomes}"
        yield f"    {one.why}"
