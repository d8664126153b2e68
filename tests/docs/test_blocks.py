"""Every code block of README and the manual runs as it stands, or its page says why it cannot."""

import sys
from pathlib import Path

import pytest
from blocks import ROOT, RUN, Reader, blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their Python is run block by block in tests of their own, which compare the results.
ELSEWHERE = {
    "docs/migration.md": "tests/compat/test_migration.py",
    "docs/migration_unit_scaling.md": "tests/compat/test_compat_unit_scaling_docs.py",
}
# Pages that take longer than about two seconds.
SLOW = {
    "docs/adapters.md",
    "docs/analysis.md",
    "docs/command_line.md",
    "docs/coordinate_check.md",
    "docs/index.md",
    "docs/balancing.md",
    "docs/own_optimizer.md",
    "docs/sweeps.md",
    "docs/trainers.md",
    "docs/tutorials/depth.md",
    "docs/tutorials/experts.md",
    "docs/tutorials/first_transfer.md",
    "docs/tutorials/from_mup.md",
    "docs/tutorials/own_model.md",
    "docs/tutorials/own_script.md",
    "docs/tutorials/predict_loss.md",
    "docs/tutorials/second_order.md",
    "docs/tutorials/slurm.md",
}
# Pages whose commands do not need their Python: these are run apart, with the slow tests.
APART = {"README.md"}
# What a page prints, beside what it shows itself.
PRINTED = {
    "README.md": ["fan_in^-1 = 0.0625", "PASS"],
    "docs/analysis.md": ["it transfers"],
    "docs/index.md": ["sp: best lr moves -1.", "mup: best lr moves +0.", "undecided"],
    "docs/export.md": ["config_overrides = {"],
    "docs/tutorials/own_model.md": [
        "sp: best lr moves -1.",
        "mup: best lr moves -0.",
        "Use lr = 0.002",
    ],
    "docs/tutorials/own_script.md": ["it does not transfer", "costs 0.00"],
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def parts():
    """Every page that has blocks to run, with the languages that are run together."""
    for page in PAGES:
        if name(page) in ELSEWHERE or not any(block.runs for block in blocks(page)):
            continue
        for languages in (("python",), ("bash", "console")) if name(page) in APART else (RUN,):
            slow = name(page) in SLOW or "python" not in languages
            label = name(page) + ("" if "python" in languages else ", commands")
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(page, languages, id=label, marks=marks)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("page", "languages"), list(parts()))
def test_every_block_of_the_page_runs(page, languages, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.setenv("MPLBACKEND", "Agg")
    plt.switch_backend("Agg")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    reader = Reader(folder)
    try:
        reader.follow(page, languages)
    finally:
        plt.close("all")
        for module in set(sys.modules) - before:
            if str(getattr(sys.modules[module], "__file__", "")).startswith(str(folder)):
                del sys.modules[module]
    if "python" in languages:
        assert [text for text in PRINTED.get(name(page), ()) if text not in reader.said] == []


def test_pages_that_are_run_elsewhere_are():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")
        shells = [b for b in blocks(ROOT / page) if b.language in ("bash", "console")]
        assert [b.place for b in shells if b.excuse is None] == []


def test_blocks_have_a_language_that_is_known():
    known = {*RUN, "yaml", "json", "text"}
    assert [b.place for page in PAGES for b in blocks(page) if b.language not in known] == []


def test_names_of_pages_in_these_tables_exist():
    assert {*ELSEWHERE, *SLOW, *PRINTED} <= {name(page) for page in PAGES}
