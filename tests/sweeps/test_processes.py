"""Workers that die, hang, fork, are suspended, or are taken for dead."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from process_tools import PARAMZ, runs, wait_for, wanted

from paramz.sweeps import Store, load, run
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.process import Assignment
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.stopping import Stop


@pytest.mark.parametrize(
    ("then", "error"),
    [("dies", "the worker process exited with code 7"), ("hangs", "over its time limit of 0.05")],
)
def test_a_worker_that_has_forked_ends_with_its_children(tmp_path, then, error):
    limits = {"minutes": 0.05 if then == "hangs" else 5}
    sweep = wanted("forked", axes={"then": [then]}, resources=limits)
    (row,) = run(sweep, tmp_path / "run").to_dict("records")
    assert row["status"] == "failed" and error in row["error"]
    (child,) = (tmp_path / "run").glob("trials/*/child")
    wait_for(lambda: not runs(int(child.read_text())))


@pytest.mark.parametrize(
    ("then", "error"), [("dies", "exited with code 7"), ("goes on", "os.closerange")]
)
def test_a_worker_that_closes_its_connection_is_told_by_how_it_ends(tmp_path, then, error):
    """It was killed at once, and told as out of memory."""
    (row,) = run(wanted("closing", axes={"then": [then]}), tmp_path / "run").to_dict("records")
    assert row["status"] == "failed" and error in row["error"]


def test_what_a_finished_trial_forked_does_not_outlive_the_sweep(tmp_path):
    (row,) = run(wanted("forked", axes={"then": ["ends"]}), tmp_path / "run").to_dict("records")
    assert row["status"] == "ok"
    (child,) = (tmp_path / "run").glob("trials/*/child")
    wait_for(lambda: not runs(int(child.read_text())))


def test_what_a_command_has_started_ends_with_a_sweep_that_is_killed(tmp_path):
    """It went on writing into the directory of a trial that the next sweep began anew."""
    (tmp_path / "run.sh").write_text('sleep 3600 &\necho $! > "$1/child"\nwait\n')
    spec, out = tmp_path / "spec.yaml", tmp_path / "run"
    spec.write_text(
        'command: [sh, run.sh, "{trial.directory}", "{seed}"]\n'
        "metrics: {pattern: 'loss (?P<loss>.*)'}\naxes: {seed: [0]}\n"
    )
    sweep = subprocess.Popen([*PARAMZ, "sweep", str(spec), "--out", str(out)])
    wait_for(lambda: any(file.read_text() for file in out.glob("trials/*/child")))
    (child,) = out.glob("trials/*/child")
    assert runs(pid := int(child.read_text()))
    sweep.kill()
    sweep.wait()
    wait_for(lambda: not runs(pid))


@pytest.mark.slow
def test_a_suspended_sweep_exceeds_no_limit(tmp_path):
    """As by Slurm's suspension: the pool and its workers are stopped, and go on later."""
    sweep = wanted(
        "counting",
        base={"steps": 20, "sleep": 0.2},  # it must not end before it is suspended
        resources={"minutes": 0.2, "silent_minutes": 0.15},
    )
    spec = tmp_path / "spec.yaml"
    spec.write_text(sweep.to_yaml())
    process = subprocess.Popen([*PARAMZ, "sweep", str(spec), "--out", str(tmp_path / "run")])
    (key,) = sweep.trials
    folder = tmp_path / "run" / "trials" / key
    wait_for((folder / "history.jsonl").exists)
    attempt = json.loads((folder / "attempt-0001.json").read_text())
    workers = [int(pid) for pid in children(attempt["pid"])]
    for pid in (attempt["pid"], *workers):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(14)
    for pid in (attempt["pid"], *workers):
        os.kill(pid, signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    (row,) = load(tmp_path / "run").to_dict("records")
    assert row["status"] == "ok" and row["seconds"] < 12


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_trial_that_was_taken_over_is_left_to_the_other_process(tmp_path):
    """The loser ends its worker as soon as it looks, and records nothing."""
    sweep = wanted("counting", base={"steps": 10000, "sleep": 0.01})
    store = Store(tmp_path / "run")
    ((key, config),) = prepare(sweep, store).items()

    def take_over():
        wait_for((store.trial(key) / "history.jsonl").exists)
        (store.trial(key) / "attempt-0002.json").write_text('{"host": "elsewhere", "number": 2}')
        pool._last_heartbeat = 0.0

    pool = Pool(store, sweep.train, workers=1)
    threading.Thread(target=take_over).start()
    tally = pool.run([Assignment(key, config)], Stop())
    assert tally.busy == {key} and store.finished() == set()
    first = json.loads((store.trial(key) / "attempt-0001.json").read_text())
    assert first["why"] == "taken over by another process, which saw no heartbeat"
    steps = (store.trial(key) / "history.jsonl").read_text()
    time.sleep(0.2)
    assert (store.trial(key) / "history.jsonl").read_text() == steps


def test_a_worker_that_goes_on_after_a_suspension_writes_nothing_if_it_was_taken_over(tmp_path):
    sweep = wanted("counting", base={"steps": 10000, "sleep": 0.01})
    store = Store(tmp_path / "run")
    ((key, config),) = prepare(sweep, store).items()
    seen = {}

    def suspend():
        history = store.trial(key) / "history.jsonl"
        wait_for(history.exists)
        (worker,) = pool._workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        (store.trial(key) / "attempt-0002.json").write_text('{"host": "elsewhere", "number": 2}')
        seen["before"] = len(history.read_text().splitlines())
        os.kill(worker.process.pid, signal.SIGCONT)

    pool = Pool(store, sweep.train, workers=1)
    threading.Thread(target=suspend).start()
    tally = pool.run([Assignment(key, config)], Stop())
    assert tally.busy == {key} and not tally.saved
    after = len((store.trial(key) / "history.jsonl").read_text().splitlines())
    assert after - seen["before"] <= 1  # at most the line that was being written
