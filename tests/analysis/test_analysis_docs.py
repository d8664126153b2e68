from pathlib import Path

from paramz.analysis.forms import FORMS

PAGE = Path(__file__).parents[2] / "docs/analysis.md"


def test_the_page_lists_every_form() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in FORMS)
