"""What the verbs print, and their exit codes."""

import io
import json
import os
import warnings

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from paramz.cli import app, said
from paramz.cli.look import look_at
from paramz.cli.said import said_at_once
from paramz.plan.summary import Summary
from paramz.sweeps import Store, run
from paramz.sweeps.store.files import last_lines


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def finished(sweep, tmp_path):
    """A sweep with two failures of one kind, one of another, a divergence and a success."""
    axes = {"fault": ["raise", "none", "nan", "exit"], "seed": [1]}
    run(sweep("faulty", axes=axes), tmp_path / "run", workers=1)
    return tmp_path / "run"


def test_sweep_runs_resumes_and_exits_with_what_happened(spec_file, tmp_path):
    path = spec_file("axes: {width: [1, 2], lr: [0.5]}\n")
    first = call("sweep", path, "--out", tmp_path / "run", "--json")
    assert first.exit_code == 0
    assert json.loads(first.stdout) == {
        "directory": str(tmp_path / "run"),
        "trials": 2,
        "ran": {"ok": 2},
        "left": 0,
    }
    again = call("sweep", path, "--out", tmp_path / "run")
    assert "2 of 2 trials have a result already" in again.stderr and again.stdout == ""


def test_a_failed_trial_is_told_at_once_with_where_its_log_is(spec_file, tmp_path):
    path = spec_file("axes: {width: [1], lr: [none]}\n")
    said = call("sweep", path, "--out", tmp_path / "run")
    assert said.exit_code == 1
    (key,) = Store(tmp_path / "run").finished()
    assert "failed: width=1, lr=none: TypeError: must be real number, not str" in said.stderr
    assert f"(paramz logs {tmp_path / 'run'} {key})" in said.stderr


def test_a_bad_spec_is_an_error_without_a_traceback(spec_file, tmp_path):
    said = call("sweep", spec_file("axis: {}\n"), "--out", tmp_path / "run")
    assert said.exit_code == 2 and not (tmp_path / "run").exists()
    assert said.stderr.startswith(f"error: {tmp_path}/spec.yaml:2: unknown key 'axis'; known keys:")


def test_dry_run_lists_the_configs(spec_file, tmp_path):
    path = spec_file("axes: {width: [1, 2], lr: [0.5]}\n")
    said = call("sweep", path, "--out", tmp_path / "run", "--dry-run")
    assert said.stdout.splitlines()[1:] == [
        f"2 trials to run, 0 done: {tmp_path / 'run'}",
        "  width=1  lr=0.5",
        "  width=2  lr=0.5",
    ]
    assert not (tmp_path / "run").exists()


def test_status_counts_and_groups_failures(finished):
    lines = call("status", finished).stdout.splitlines()
    assert lines[0] == f"{finished}: 4 trials: 1 ok, 1 diverged, 2 failed"
    assert any(line.startswith("1 failed: RuntimeError: no luck with None (e.g.") for line in lines)
    found = json.loads(call("status", finished, "--json").stdout)
    assert found["counts"]["failed"] == 2 and found["left"] == 0


def test_brackets_in_an_error_are_shown_on_a_terminal(finished, sweep, tmp_path):
    """Rich took them for its styles: some were left out, and others ended the verb."""
    record = next(r for r in Store(finished).records() if r["status"] == "failed")
    error = "ValueError: no [/INST] behind [bold] :key:"
    record |= {"error": error}
    (finished / "results" / f"{record['key']}.json").write_text(json.dumps(record))
    out = io.StringIO()
    Console(file=out, width=200).print(look_at(Store(finished)).table())
    assert error in out.getvalue()
    shown = str(Summary("[x] :key:", ("a", "b"), (("[/b]", "[red]"),), ("a note [w]",)))
    assert all(text in shown for text in ("[x] :key:", "[/b]", "[red]", "a note [w]"))


def test_status_reports_what_is_broken_and_missing(finished):
    victim = next((finished / "results").glob("*.json"))
    victim.write_text("{")
    said = call("status", finished)
    assert f"warning: {victim}: it is not complete JSON; moved to" in said.stderr
    assert "1 interrupted" in said.stdout and "1 broken files in quarantine/" in said.stdout


def test_status_of_no_sweep(tmp_path):
    said = call("status", tmp_path / "none")
    assert said.exit_code == 2 and "holds no sweep (no folder results/)" in said.stderr


def test_watch_ends_when_nothing_runs(finished):
    said = call("watch", finished)
    assert said.stdout.count("\n") == 1 and "4 trials: 1 ok" in said.stdout


def test_watch_as_json_prints_a_document_a_line(finished):
    (line,) = call("watch", finished, "--json").stdout.splitlines()
    assert json.loads(line) == json.loads(call("status", finished, "--json").stdout)


def test_logs_show_the_attempts_and_the_traceback(finished):
    shown = call("logs", finished).stdout
    assert "fault=raise  seed=1" in shown and "attempt-0001: " in shown
    assert "  failed: the worker process exited with code 7" in shown
    assert "|     raise RuntimeError" in shown
    missing = call("logs", finished, "zzz")
    assert missing.exit_code == 2 and "no trial of" in missing.stderr


def test_logs_show_the_rank_that_failed(finished):
    """Of a trial with several processes, of which one has raised and the others wait."""
    record = next(Store(finished).records())
    for rank in range(1, 12):
        last = ["Traceback (most recent call last):", "ValueError: odd"] if rank == 11 else ["on"]
        text = "\n".join([f"rank {rank} begins", *["step"] * 100, *last])
        (finished / "trials" / record["key"] / f"log.{rank}.txt").write_text(text)
    (finished / "trials" / record["key"] / "log.2030-01-01.txt").write_text("no rank's")
    shown = call("logs", finished, record["key"], "-n", "2").stdout
    assert "  rank 11:\n  | Traceback (most recent call last):\n  | ValueError: odd\n" in shown
    assert "  rank 1:\n  | step\n  | on\n" in shown and "rank 2" not in shown
    one = json.loads(call("logs", finished, record["key"], "--json", "-n", "1").stdout)
    assert one["trials"][0]["ranks"] == {"11": ["ValueError: odd"], "1": ["on"]}


def test_logs_leave_out_failures_that_are_asked_for_no_more(finished, sweep, tmp_path):
    run(sweep("faulty", axes={"fault": ["none"], "seed": [1]}), finished, workers=1)
    assert call("logs", finished).stdout.startswith("no failed trials")


@pytest.mark.parametrize("longest", [10, 3 << 20])
def test_of_a_large_log_the_end_is_read(tmp_path, longest):
    with open(tmp_path / "log.txt", "wb") as file:
        file.truncate(1 << 34)  # bytes, of which the disk holds none
        file.seek(0, os.SEEK_END)
        file.write(b"\nbegin\xff " + b"x" * longest + b"\nend\n")
    first, last = last_lines(tmp_path / "log.txt", 2)
    assert last == "end" and len(first) <= 1 << 20 and first.endswith("x" * 10)
    assert last_lines(tmp_path / "none.txt", 2) == []


def test_logs_as_json(finished):
    found = json.loads(call("logs", finished, "--json", "-n", "2").stdout)
    assert found["failed"] == 2
    raised = next(trial for trial in found["trials"] if trial["config"]["fault"] == "raise")
    assert raised["status"] == "failed" and raised["log"][0] == "RuntimeError: no luck with None"
    assert [attempt["why"] for attempt in raised["attempts"]] == ["failed"]
    one = json.loads(call("logs", finished, raised["key"], "--json", "-n", "2").stdout)
    assert one["failed"] is None and one["trials"] == [raised]


def test_collect_writes_csv_and_parquet(finished, tmp_path):
    assert call("collect", finished).stdout == f"4 trials in {finished}/results.csv\n"
    call("collect", finished, "--out", tmp_path / "table.parquet")
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert len(table) == len(pd.read_csv(finished / "results.csv")) == 4
    refused = call("collect", finished, "--out", tmp_path / "table.xls")
    assert refused.exit_code == 2 and "a table is .csv or .parquet" in refused.stderr


def test_retry_runs_the_failed_ones_from_the_directory_alone(finished, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = call("retry", finished)
    assert said.exit_code == 1  # they fail again
    assert "2 of 4 trials have a result already" in said.stderr
    attempts = sorted(len(list(p.glob("attempt-*"))) for p in (finished / "trials").iterdir())
    assert attempts == [1, 1, 2, 2]


def test_prune_lists_and_deletes_what_the_spec_no_longer_asks_for(finished, sweep):
    store = Store(finished)
    keep = sweep("faulty", axes={"fault": ["none"], "seed": [1]})
    run(keep, finished)
    (store.trial(next(iter(keep.trials))) / "model.pt").write_text("weights")
    listed = call("prune", finished, "--checkpoints").stdout
    assert "3  result that the sweep no longer asks for" in listed
    assert "3  trial that the sweep no longer asks for" in listed
    assert "1  saved by a finished trial" in listed and "--yes deletes them" in listed
    assert len(store.finished()) == 4
    call("prune", finished, "--checkpoints", "--yes")
    assert store.finished() == set(keep.trials) and len(os.listdir(finished / "trials")) == 1
    assert call("prune", finished, "--checkpoints").stdout == "nothing to prune\n"


def test_cancel_without_slurm(finished, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert call("cancel", finished).stdout == "0 jobs cancelled\n"  # it was never submitted
    (finished / "slurm").mkdir()
    said = call("cancel", finished)
    assert said.exit_code == 2 and "no command squeue" in said.stderr


def test_a_warning_is_told_once_with_the_place_of_what_is_not_paramzs(capsys):
    """The same registry forgets what it has shown whenever filters change, as they do in torch."""
    with said_at_once():
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.warn("mind the gap", stacklevel=1)
            warnings.warn_explicit("other code", UserWarning, said.__file__, 1)
    line = test_a_warning_is_told_once_with_the_place_of_what_is_not_paramzs.__code__.co_firstlineno
    assert capsys.readouterr().err.splitlines() == [
        f"warning: mind the gap ({__file__}:{line + 5})",
        "warning: other code",
    ]
