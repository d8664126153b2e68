import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from paramz.analysis.forms import FORMS

PAGE = Path(__file__).parents[2] / "docs/analysis.md"


@pytest.mark.filterwarnings("ignore")
def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("Agg")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert "it transfers" in capsys.readouterr().out


def test_the_page_lists_every_form() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in FORMS)
