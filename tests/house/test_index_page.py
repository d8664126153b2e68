"""The landing page: its example runs as it stands, and shows what the page says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/index.md").read_text(encoding="utf-8")


def test_schemes_of_the_table_exist():
    import paramz

    names = re.findall(r"\| `\"([\w+-]+)\"` \|", PAGE)
    assert len(names) == 5
    for name in names:
        assert paramz.parametrization(name).name == name


@pytest.mark.slow
def test_the_example_runs_and_shows_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/index.md", "exec"), space := {})
    verdicts = space["found"].verdicts
    assert verdicts["sp"].outcome == "fail" and verdicts["mup"].outcome != "fail"
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
