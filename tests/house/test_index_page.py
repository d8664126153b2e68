"""The landing page and the page on schemes: what they name is there."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_schemes_of_the_table_exist():
    import paramz

    for page, least in (("index.md", 5), ("explanation/schemes.md", 12)):
        text = (DOCS / page).read_text(encoding="utf-8")
        names = re.findall(r"`\"([\w+-]+)\"`", text)
        assert len(names) >= least
        for name in names:
            assert paramz.parametrization(name).name == name
