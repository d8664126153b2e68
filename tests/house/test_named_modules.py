"""Every module, function and file of paramz that a text names is there, under that name.

Docs, docstrings and comments may name anything that can be imported. A message to a user names only
what ``import paramz`` gives: ``paramz.hf.config_factory``, not the module that defines it.
"""

import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest

import paramz

ROOT = Path(__file__).parents[2]
# Also `paramz.X.y` at the end of a sentence, or called; but not a file name or a domain.
NAME = re.compile(r"(?<![\w./-])paramz((?:\.[A-Za-z_]\w*)+)(?![\w/])")
FILE = re.compile(r"(?<![\w/])paramz/[\w/]+\.(?:py|css|js)\b")
# Words that follow "paramz." without being its attributes.
ENDINGS = {"json", "py", "toml", "yaml"}
# The module of a training function before the files moved, which stores of then still name.
FORMER = {"check_sweep"}


def named(text):
    found = {match.group(1)[1:] for match in NAME.finditer(text)}
    return {name for name in found if name.split(".")[0] not in ENDINGS} - FORMER


@cache
def exists(name):
    """Whether `paramz.<name>` is a module, or an attribute of one."""
    parts = name.split(".")
    for length in range(len(parts), -1, -1):
        try:
            place = importlib.import_module(".".join(["paramz", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[length:]:
                place = getattr(place, part)
        except AttributeError:
            continue
        return True
    return False


def reachable(name):
    """Whether `import paramz` is enough to use `paramz.<name>`."""
    return name.split(".")[0] in paramz.__all__ and exists(name)


def pages():
    listed = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [path for path in listed if path not in reference()]


def reference():
    return sorted((ROOT / "docs" / "reference").glob("*.md"))


def sources():
    folders = ("paramz", "docs", "benchmarks", "sweeps")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def messages(path):
    """The string constants of a file that are texts: neither docstrings nor names of modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docs.add(id(first.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            if " " in node.value:
                yield node.value


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_pages_name_what_import_paramz_gives(path):
    text = path.read_text(encoding="utf-8")
    imported = set(re.findall(r"(?:from|import) paramz\.([\w.]+)", text))
    wrong = [
        name
        for name in sorted(named(text))
        if not (reachable(name) or (name in imported and exists(name)))
    ]
    assert wrong == []


def test_the_reference_names_what_can_be_imported():
    text = "".join(path.read_text(encoding="utf-8") for path in reference())
    assert [name for name in sorted(named(text)) if not exists(name)] == []


def shown_in_the_reference():
    """The names of its directives, and of the members that these list."""
    text = "".join(path.read_text(encoding="utf-8") for path in reference())
    for name, rest in re.findall(r"^::: paramz\.([\w.]+)\n((?: .*\n|\n)*)", text, re.MULTILINE):
        yield name
        if members := re.search(r"members: \[(.*?)\]", rest):
            yield from (f"{name}.{member}" for member in members[1].split(", "))


def test_the_reference_has_every_public_name():
    shown = set(shown_in_the_reference())
    homes = {paramz._MODULES.get(name, name) for name in paramz.__all__} - {"apply.hf"}
    assert sorted(homes - shown) == []
    for name in ("adapters", "analysis", "check", "nn", "optim", "reparam", "slurm", "sweeps"):
        module = importlib.import_module(f"paramz.{name}")
        public = set(getattr(module, "__all__", ()) or paramz_names(module)) - {"write_report"}
        left = {f"{name}.{member}" for member in public - set(paramz.__all__)} - shown
        assert sorted(left) == []
    members = {f"apply.hf.{name}" for name in ("save_pretrained", "from_pretrained")}
    assert members | {"analysis.report.write_report"} <= shown


def paramz_names(module):
    """What a module that lists no names has of paramz's own."""
    return {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "").startswith("paramz.") and not name.startswith("_")
    }


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_code_and_its_docstrings_name_what_can_be_imported(path):
    text = path.read_text(encoding="utf-8")
    assert [name for name in sorted(named(text)) if not exists(name)] == []


def test_messages_name_what_import_paramz_gives():
    wrong = {
        f"{path.relative_to(ROOT)}: paramz.{name}"
        for path in sorted((ROOT / "paramz").rglob("*.py"))
        for text in messages(path)
        for name in named(text)
        if not reachable(name) and not re.search(rf"(from|import|-m) paramz\.{name}", text)
    }
    assert sorted(wrong) == []


def test_notebooks_name_what_can_be_imported():
    wrong = set()
    for path in sorted((ROOT / "analysis").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            wrong |= {name for name in named("".join(cell["source"])) if not exists(name)}
    assert sorted(wrong) == []


def test_files_named_in_texts_are_there():
    texts = [*pages(), *sources(), ROOT / "pyproject.toml", ROOT / "mkdocs.yml"]
    wrong = {
        f"{path.name}: {file}"
        for path in texts
        for file in FILE.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / file).is_file()
    }
    assert sorted(wrong) == []
