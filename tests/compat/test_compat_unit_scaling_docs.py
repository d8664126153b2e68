"""docs/migration_unit_scaling.md: its code runs, and its list is the package's."""

import re
from pathlib import Path

import pytest

import paramz.compat.unit_scaling as uu

PAGE = (Path(__file__).parents[2] / "docs" / "migration_unit_scaling.md").read_text("utf-8")


def test_code_blocks_run_in_order():
    pytest.importorskip("unit_scaling")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    program = {"__name__": "page"}
    exec(compile(code, "docs/migration_unit_scaling.md", "exec"), program)
    assert program["plan"].parametrization.name == "u-mup"


def test_every_name_that_is_left_out_is_listed_with_its_reason():
    listed = {}
    for names, why in re.findall(
        r"^\| (`.*`) \| (.*) \|$", PAGE.split("left out")[1], re.MULTILINE
    ):
        listed.update(dict.fromkeys(re.findall(r"`([\w.]+)`", names), why))
    assert listed == dict(uu.ABSENT)
