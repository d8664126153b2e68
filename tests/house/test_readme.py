"""The README's example is short, its commands exist, and so do the files it links to.

That its code runs: tests/docs/test_blocks.py.
"""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_example_is_six_lines() -> None:
    assert len(blocks("python")[0].strip().splitlines()) == 6


@pytest.mark.parametrize(
    "verb", sorted(set(re.findall(r"^paramz ([a-z]+) ", README, re.MULTILINE)))
)
def test_verbs_exist(verb: str) -> None:
    from typer.testing import CliRunner

    from paramz.cli import app

    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0, shown.output


def test_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_of_drifts_is_made_from_the_tables_of_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = importlib.import_module("readme_table")
    shown = README.partition(page.START)[2].partition(page.END)[0]
    assert shown.strip() == page.table().strip()
