import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from process_tools import wait_for

from paramz.sweeps import load, run
from paramz.sweeps.running.pool import BrokenTarget, Pool
from paramz.sweeps.running.process import Assignment
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.spec.config import config_key
from paramz.sweeps.store.store import Store

FUNCTIONS = Path(__file__).parent / "sweep_functions.py"


def ran(store, key):
    """How often the trial's function was entered."""
    return len((store.trial(key) / "ran").read_text())


def walk(seed, steps):
    """What `resumable` must return, whatever happened to it on the way."""
    position = 0.0
    for step in range(steps):
        position += random.Random(f"{seed} {step}").gauss(0, 1)
    return abs(position)


def test_runs_every_trial_once_and_a_rerun_runs_none(sweep, tmp_path):
    wanted = sweep("train", axes={"width": [32, 64], "lr": {"log2": [-4, -2]}})
    table = run(wanted, tmp_path / "run", workers=2)
    assert len(table) == 6 and (table["status"] == "ok").all()
    best = table.loc[table.groupby("width")["loss"].idxmin()]
    assert best["lr"].tolist() == [0.125, 0.125]
    run(wanted, tmp_path / "run")
    store = Store(tmp_path / "run")
    assert [ran(store, key) for key in wanted.trials] == [1] * 6


def test_a_grown_sweep_runs_only_what_is_new(sweep, tmp_path):
    run(sweep("train", axes={"width": [32], "lr": [0.5]}), tmp_path / "run")
    grown = sweep("train", axes={"width": [32, 64], "lr": [0.5]})
    assert [c["width"] for c in prepare(grown, Store(tmp_path / "run")).values()] == [64]


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("raise", "failed", r"RuntimeError: no luck with \[LAB_TOKEN\]"),
        ("exit", "failed", "the worker process exited with code 7"),
        ("kill", "failed", r"the worker process was killed by SIGKILL \(out of memory\?\)"),
        ("hang", "failed", r"logged nothing for 0.02 minutes \(a hang\?\)"),
        ("chatty hang", "failed", "over its time limit of 0.05 minutes"),
        ("nan", "diverged", "loss nan"),
        ("log nan", "diverged", "loss inf at step 3"),
        ("high", "diverged", r"loss 1e\+06 at step 3"),
        ("no loss", "failed", r"must return metrics with 'loss', got keys \['accuracy'\]"),
        ("text", "failed", "the returned loss is not a number: could not convert"),
    ],
)
def test_a_fault_is_recorded_and_its_neighbours_are_not_touched(
    sweep, tmp_path, monkeypatch, fault, status, error
):
    monkeypatch.setenv("LAB_TOKEN", "hunter2hunter2")
    limits = {"minutes": 0.05, "silent_minutes": 0.02} if "hang" in fault else {}
    faults = ["none", fault, "also none"]
    wanted = sweep("faulty", axes={"fault": faults}, resources=limits, loss_limit=1e3)
    table = run(wanted, tmp_path / "run", workers=1).set_index("fault").loc[faults]
    assert table["status"].tolist() == ["ok", status, "ok"]
    assert re.search(error, table.loc[fault, "error"])
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or "hunter2" not in path.read_text()


def test_a_trial_does_not_depend_on_its_company(sweep, tmp_path):
    """Seeds come from the key, and the environment is put back between trials."""
    axes = {"fault": ["environment", "none"]}
    together = run(sweep("faulty", axes=axes), tmp_path / "together", workers=1)
    alone = run(sweep("faulty", axes={"fault": ["none"]}), tmp_path / "alone")
    together = together[together["fault"] == "none"]
    assert together[["loss", "left"]].values.tolist() == alone[["loss", "left"]].values.tolist()


def test_failed_trials_run_again_unless_told_otherwise(sweep, tmp_path):
    wanted = sweep("faulty", axes={"fault": ["raise", "nan", "none"]})
    run(wanted, tmp_path / "run")

    def left(retry):
        return sorted(c["fault"] for c in prepare(wanted, Store(tmp_path / "run"), retry).values())

    assert left("none") == []
    assert left("failed") == ["raise"]
    assert left("diverged") == ["nan", "raise"]  # the raise was put aside just before
    assert left("all") == ["nan", "none", "raise"]


def test_another_function_in_the_same_directory_is_refused(sweep, tmp_path):
    run(sweep("one_argument", axes={"lr": [0.5]}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds results of .*:one_argument, this sweep trains"):
        run(sweep("train", axes={"lr": [0.5]}), tmp_path / "run")


def test_budget_of_trials(sweep, tmp_path):
    wanted = sweep("train", axes={"width": [1, 2, 3], "lr": [0.5]}, budget={"trials": 2})
    with pytest.raises(ValueError, match="has 3 trials, its budget allows 2"):
        run(wanted, tmp_path / "run")


def test_a_function_that_cannot_be_imported_ends_the_sweep_and_records_nothing(tmp_path):
    file = tmp_path / "lab.py"
    file.write_text("import no_such_package\ndef train(config): ...\n")
    store = Store(tmp_path / "run").create()
    pool = Pool(store, f"{file}:train", workers=2)
    with pytest.raises(BrokenTarget, match="No module named 'no_such_package'"):
        pool.run([Assignment(config_key({"a": n}), {"a": n}) for n in range(5)], Stop())
    assert store.finished() == set()


def test_a_worker_that_dies_on_import_ends_the_sweep(tmp_path):
    file = tmp_path / "lab.py"
    file.write_text("import os\nos._exit(3)\ndef train(config): ...\n")
    pool = Pool(Store(tmp_path / "run").create(), f"{file}:train", workers=1)
    with pytest.raises(BrokenTarget, match="exited with code 3 while importing"):
        pool.run([Assignment(config_key({"a": 1}), {"a": 1})], Stop())


def test_a_stopped_trial_resumes_where_it_was_and_ends_the_same(sweep, tmp_path):
    wanted = sweep("resumable", base={"steps": 40}, axes={"seed": [0, 1]})
    store = Store(tmp_path / "run")
    hold = held(tmp_path)
    assignments = [Assignment(key, config) for key, config in prepare(wanted, store).items()]
    stop = Stop()
    threading.Thread(target=lambda: (saved(tmp_path, 2), stop.request())).start()
    tally = Pool(store, wanted.train, workers=2).run(assignments, stop)
    assert tally.interrupted == set(wanted.trials) and store.finished() == set()
    hold.unlink()
    table = run(wanted, tmp_path / "run").set_index("seed").sort_index()
    assert table["loss"].tolist() == [walk(0, 40), walk(1, 40)]
    assert table["attempt"].tolist() == [2, 2]
    lines = (store.trial(next(iter(wanted.trials))) / "history.jsonl").read_text().splitlines()
    assert len(lines) == 40  # no step was done twice


def held(tmp_path):
    """A file: while it is there no trial goes on, however late the sweep is stopped."""
    hold = tmp_path / "run" / "hold"
    hold.parent.mkdir()
    hold.touch()
    return hold


def saved(tmp_path, count):
    """Wait until so many trials have saved a checkpoint."""
    wait_for(lambda: len(list((tmp_path / "run").glob("trials/*/checkpoint.json"))) == count)


def command(path, out):
    paramz = [sys.executable, "-c", "from paramz.cli import main; main()"]
    return [*paramz, "sweep", str(path), "--out", str(out), "--workers", "2"]


def start(spec_file, tmp_path):
    text = f"train: {FUNCTIONS}:resumable\nbase: {{steps: 20}}\naxes: {{seed: [0, 1, 2]}}\n"
    path, hold = spec_file(text), held(tmp_path)
    process = subprocess.Popen(
        command(path, tmp_path / "run"), stderr=subprocess.PIPE, text=True, process_group=0
    )
    saved(tmp_path, 2)
    return path, process, hold


def test_ctrl_c_saves_and_the_same_command_goes_on(spec_file, tmp_path):
    path, process, hold = start(spec_file, tmp_path)
    os.killpg(process.pid, 2)  # as a terminal does: the whole foreground group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopping; trials that can resume are saving checkpoints" in err
    assert "stopped; the same command goes on from here" in err and "Traceback" not in err
    hold.unlink()
    subprocess.run(command(path, tmp_path / "run"), check=True)
    table = load(tmp_path / "run").set_index("seed").sort_index()
    assert table["loss"].tolist() == [walk(seed, 20) for seed in range(3)]


def test_after_kill_9_the_same_command_goes_on_at_once(spec_file, tmp_path):
    path, process, hold = start(spec_file, tmp_path)
    process.kill()
    process.wait()
    hold.unlink()
    subprocess.run(command(path, tmp_path / "run"), check=True, timeout=120)
    table = load(tmp_path / "run").set_index("seed").sort_index()
    assert table["loss"].tolist() == [walk(seed, 20) for seed in range(3)]
    assert sorted(table["attempt"]) == [1, 2, 2]


def test_two_people_running_the_same_sweep_share_it(spec_file, tmp_path):
    text = "base: {sleep: 0.05}\naxes: {width: [1, 2, 3, 4, 5, 6, 7, 8], lr: [0.5]}\n"
    path = spec_file(text)
    both = [subprocess.Popen(command(path, tmp_path / "run")) for _ in range(2)]
    assert {process.wait(timeout=120) for process in both} <= {0, 1}
    subprocess.run(command(path, tmp_path / "run"), check=True)
    store = Store(tmp_path / "run")
    assert [ran(store, key) for key in sorted(store.finished())] == [1] * 8


def test_a_secret_of_the_environment_is_in_no_file(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_API_KEY", "hunter2-hunter2")
    (row,) = run(sweep("leaky", axes={"a": [1]}), tmp_path / "run").to_dict("records")
    assert row["error"] == "RuntimeError: 401 for https://[LAB_API_KEY]@tracker"
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if b"hunter2-hunter2" in path.read_bytes()]
