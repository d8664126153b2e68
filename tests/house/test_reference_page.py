"""The reference page is what its script writes."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current():
    page = runpy.run_path(str(DOCS / "parametrizations.py"))["page"]()
    assert (DOCS / "parametrizations.md").read_text(encoding="utf-8") == page, (
        "docs/parametrizations.md is not what the tables say: run python docs/parametrizations.py"
    )
    assert "## completep" in page
    assert "| mup+completep | adamw | PASS |" in page
