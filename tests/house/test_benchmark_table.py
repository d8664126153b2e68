"""The table of ratios names every goal that is missed, with its reason."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("_rows")


def row(what: str, figure: float, goal: str) -> dict[str, object]:
    return {
        "what": what, "over": "plain", "figure": (figure - 0.1, figure, figure + 0.1),
        "goal": goal, "unit": "", "by": "x.py",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "met", "not_met"),
    [("1.6", 1.6, 1.61), ("0.99 to 1.01", 0.99, 1.02), ("under 10", 9.9, 10.0)]
    + [("1.8 or more", 1.8, 1.79), ("torch's or below", 1.03, 1.04), ("", 9.0, None)],
)
def test_goals_of_every_form_are_compared(
    rows: ModuleType, goal: str, met: float, not_met: float | None
) -> None:
    peer = row("step with torch weight norm", 1.03, "")
    assert not rows.missed(row("step with weight norm", met, goal), [peer])
    if not_met is not None:
        assert rows.missed(row("step with weight norm", not_met, goal), [peer])
    with pytest.raises(ValueError, match="cannot be compared, 'about 3 or so'"):
        rows.missed(row("step", 1.0, "about 3 or so"), [])


def test_a_missed_goal_is_listed_with_its_reason(rows: ModuleType) -> None:
    shampoo = row("step of paramz shampoo", 1.7, "1.6")
    lines = rows.table([shampoo, row("step of paramz kfac", 1.2, "1.3")]).splitlines()
    assert lines[2] == "| step of paramz shampoo | plain | 1.7 [1.6, 1.8] | 1.6 | x.py |"
    (reason,) = [line for line in lines if line.startswith("- ")]
    assert reason.startswith("- **step of paramz shampoo**, 1.7 for 1.6: Of what it costs")
    assert rows.table([row("step", 1.0, "1.1")]).endswith("All goals are met.\n")
    assert "2 for 1: no reason is known yet." in rows.table([row("a new row", 2.0, "1")])


def test_a_report_from_a_gpu_is_the_same_table(rows: ModuleType) -> None:
    steps = [
        {"tied": tied, "compile": False, "parameters": 1.1e9, "ratio": 1.2 if tied else 1.0,
         "middle half of the ratios": [0.9, 1.3]}
        for tied in (False, True)
    ]  # fmt: skip
    report = {
        "machine": {"gpu": "H"},
        "steps": steps,
        "coordinates": {"mup": "PASS.", "sp": "FAIL."},
    }
    page = import_module("gpu").page(report)
    assert ": H, Python" in page and "1.1e+09 parameters" in page and "- PASS.\n- FAIL.\n" in page
    assert "| step under folded muP, eager | plain | 1 [0.9, 1.3] | 0.99 to 1.01 | gpu.py |" in page
    assert (
        page.count("\n- **") == 1 and "- **step under folded muP, eager, tied embedding**" in page
    )
