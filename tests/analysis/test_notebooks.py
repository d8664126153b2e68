"""The notebooks are executed by `pytest --nbmake analysis`, and are kept with their outputs."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "analysis").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_kept_as_it_ran_from_top_to_bottom(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith("# ")
    code = [c for c in cells if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    kinds = [o["output_type"] for c in code for o in c["outputs"]]
    assert "display_data" in kinds and "error" not in kinds
    streams = [o for c in code for o in c["outputs"] if o["output_type"] == "stream"]
    assert all(o["name"] == "stdout" for o in streams)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_small_and_says_nothing_of_the_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 500_000, "make its pictures smaller"
    assert '"execution": {' not in text, "make notebooks strips times"
    assert str(Path.home()) not in text and "site-packages" not in text
