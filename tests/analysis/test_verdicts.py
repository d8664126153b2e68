"""Verdicts of coordinate checks as records: three outcomes, written, read back and on the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from paramz.analysis.coordinates import Verdict, judge
from paramz.analysis.decide import Verdict as TransferVerdict
from paramz.analysis.report import write_report
from paramz.analysis.transfer import transfer
from paramz.cli import app


def check(slope: float, noise: float) -> pd.DataFrame:
    """One layer over three widths, whose change moves like width**slope; seeds lie apart."""
    rows = [
        ("mup", "adamw", w, seed, 0.01, 1, "layer", "hidden", quantity, size)
        for w in (64, 128, 256)
        for seed in range(3)
        for size in [w**slope * np.exp(noise * (seed - 1))]
        for quantity in ("output", "delta")
    ]
    columns = "parametrization optimizer width seed lr step module role quantity rms".split()
    return pd.DataFrame(rows, columns=columns)


CHECKS = {"pass": check(0.0, 0.01), "fail": check(0.5, 0.01), "undecided": check(0.3, 0.5)}


def as_before(verdict: Verdict) -> dict[str, Any]:
    """What versions without an outcome wrote."""
    data = verdict.to_json()
    del data["outcome"], data["finding"]
    return data


@pytest.mark.parametrize("outcome", CHECKS)
def test_the_outcome_decides_the_sentence_and_whether_it_passed(outcome: str) -> None:
    verdict = judge(CHECKS[outcome])
    assert verdict.outcome == outcome
    assert verdict.passed is (outcome == "pass")
    assert verdict.sentence == f"{outcome.upper()}: {verdict.finding}"
    assert verdict.finding.startswith("mup with adamw, width 64 to 256, lr 0.01: ")
    assert verdict.culprit == (None if outcome == "pass" else "layer")


@pytest.mark.parametrize("outcome", CHECKS)
def test_a_verdict_reads_back_as_it_was(outcome: str) -> None:
    verdict = judge(CHECKS[outcome])
    written = json.loads(json.dumps(verdict.to_json()))
    assert (written["passed"], written["sentence"]) == (verdict.passed, verdict.sentence)
    assert Verdict.from_json(written) == verdict


@pytest.mark.parametrize("outcome", CHECKS)
def test_a_verdict_written_before_outcomes_reads_as_it_was_meant(outcome: str) -> None:
    verdict = judge(CHECKS[outcome])
    assert Verdict.from_json(json.loads(json.dumps(as_before(verdict)))) == verdict


def test_a_sentence_without_a_prefix_is_kept_whole() -> None:
    short = {"passed": False, "sentence": "sp-adamw: slope 0.5 at readout"}
    read = Verdict.from_json(short)
    assert (read.outcome, read.finding) == ("fail", short["sentence"])
    assert read.slopes == () and read.culprit is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"outcome": "maybe"}, "'maybe' is no outcome of a verdict; there are pass, fail"),
        ({"tolerance": 0.1}, "no verdict of a coordinate check: it has no outcome"),
    ],
)
def test_what_is_no_verdict_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Verdict.from_json(data)


def test_a_table_without_anything_to_judge_is_refused() -> None:
    df = check(0.0, 0.01)
    with pytest.raises(ValueError, match="no module of this table can be judged"):
        judge(df[df.quantity == "output"])


@pytest.mark.parametrize("before", [False, True])
def test_the_page_shows_each_check_by_its_outcome(tmp_path: Path, before: bool) -> None:
    for outcome, df in CHECKS.items():
        verdict = judge(df)
        verdict.save(df, tmp_path / "coord", outcome)
        if before:
            text = json.dumps(as_before(verdict))
            (tmp_path / "coord" / f"{outcome}.json").write_text(text)
    written = write_report(tmp_path)
    html = written.path.read_text(encoding="utf-8")
    shown = re.findall(r'<p class="verdict (\w+)"><b>(\w+)\.</b>([^<]*)</p>', html)
    assert [(kind, word) for kind, word, _ in shown] == [
        ("bad", "Fail"),
        ("good", "Pass"),
        ("open", "Undecided"),
    ]
    assert all(text.startswith("mup with adamw, width 64 to 256") for _, _, text in shown)
    assert [v.partition(": ")[0] for v in written.verdicts] == ["FAIL", "PASS", "UNDECIDED"]


def test_the_page_names_a_file_that_holds_no_verdict(tmp_path: Path) -> None:
    df = CHECKS["pass"]
    judge(df).save(df, tmp_path / "coord", "x")
    (tmp_path / "coord" / "x.json").write_text('{"slopes": []}')
    with pytest.raises(ValueError, match=r"x\.json: this is no verdict of a coordinate check"):
        write_report(tmp_path)


def test_the_command_names_a_missing_column(tmp_path: Path) -> None:
    df = CHECKS["pass"]
    judge(df).save(df.drop(columns="rms"), tmp_path / "coord", "x")
    ran = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert ran.exit_code == 2
    assert ran.stderr.startswith("error: no column 'rms'; the columns are: parametrization")


def test_the_verdict_on_transfer_has_the_same_outcomes() -> None:
    known = TransferVerdict("pass", "mup: it transfers.")
    assert (known.transfers, str(known)) == (True, "mup: it transfers.")
    assert replace(known, outcome="fail").transfers is False
    assert replace(known, outcome="undecided").transfers is None


def test_a_verdict_has_one_of_three_outcomes() -> None:
    with pytest.raises(ValueError, match="True is no outcome of a verdict; there are pass, fail"):
        TransferVerdict(True, "yes")  # type: ignore[arg-type]


def test_a_drift_without_an_interval_asks_for_the_seeds_that_are_missing():
    """Half of a sweep: two seeds of the largest size. It was an OverflowError."""
    losses = {
        (2, -8): [
            (1.74252, 1.73972, 1.73948, 1.74557, 1.75573),
            (1.75297, 1.74831, 1.74778, 1.75608, 2.97790),
            (1.74255, 1.73860, 1.73999, 1.74725, 1.75192),
        ],
        (8, -9): [
            (1.72260, 1.70657, 1.69808, 1.71138, 2.51339),
            (1.72912, 1.71300, 1.70656, 1.71717, 2.73370),
            (1.71862, 1.70404, 1.69955, 1.70969, 2.73116),
        ],
        (64, -11): [
            (1.71454, 1.68857, 1.66246, 1.64822, 1.66507),
            (1.72107, 1.69389, 1.66673, 1.65249, 1.66902),
        ],
    }
    rows = [
        (rank, 2.0 ** (first + i), seed, loss)
        for (rank, first), seeds in losses.items()
        for seed, found in enumerate(seeds)
        for i, loss in enumerate(found)
    ]
    df = pd.DataFrame(rows, columns=["rank", "lr", "seed", "loss"])
    (verdict,) = transfer(df, scale="rank").verdicts.values()
    assert verdict.outcome == "undecided"
    assert "add seeds at rank 64: with 2 there the drift has no interval" in str(verdict)
