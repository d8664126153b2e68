"""What processes do to a sweep: die, hang, are suspended or interrupted, delete things."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partialmethod
from pathlib import Path

import pytest

from paramz.sweeps import Sweep, load, run
from paramz.sweeps.running import pool as pool_module
from paramz.sweeps.running import runner
from paramz.sweeps.running.capacity import capacity
from paramz.sweeps.running.launcher import Options
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.process import Assignment
from paramz.sweeps.running.recording import Recorder
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.stopping import Stop
from paramz.sweeps.spec.resources import Need
from paramz.sweeps.store.store import Store

FUNCTIONS = Path(__file__).parent / "process_functions.py"
PARAMZ = [sys.executable, "-c", "from paramz.cli import main; main()"]


def wanted(function, **rest):
    return Sweep(train=f"{FUNCTIONS}:{function}", **rest)


def wait_for(what, seconds=90):
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def runs(pid):
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


def test_what_a_finished_trial_forked_does_not_outlive_the_sweep(tmp_path):
    (row,) = run(wanted("forked", axes={"then": ["ends"]}), tmp_path / "run").to_dict("records")
    assert row["status"] == "ok"
    (child,) = (tmp_path / "run").glob("trials/*/child")
    wait_for(lambda: not runs(int(child.read_text())))


def test_a_trial_that_removes_its_directory_has_failed(tmp_path):
    what = ["nothing", "directory", "directory, made again", "directory, then fails"]
    table = run(wanted("removing", axes={"what": what}), tmp_path / "run", workers=1)
    table = table.set_index("what").loc[what]
    assert table["status"].tolist() == ["ok", "failed", "failed", "failed"]
    for error in table["error"][1:]:
        assert error.startswith("the directory of the trial was removed while it ran")


def test_what_a_trial_changes_for_its_process_ends_with_it(tmp_path, monkeypatch):
    """The first trial finds torch not yet imported, the last imports nothing."""
    monkeypatch.setenv("LAB_FOLDER", os.getcwd())
    sweep = wanted("changing", axes={"changes": [True, False]}, resources={"cpus": 1})
    first = [key for key, config in sweep.trials.items() if config["changes"]]
    store = Store(tmp_path / "run")
    given = prepare(sweep, store)
    order = sorted(given, key=lambda key: key not in first)
    pool = Pool(store, sweep.train, workers=1)
    pool.run([Assignment(key, given[key]) for key in order], Stop())
    table = load(tmp_path / "run").set_index("changes")
    assert (table["status"] == "ok").all(), table["error"].tolist()
    found = table.drop(columns=["key", "error", "seconds"])
    assert found.loc[False].to_dict() == found.loc[True].to_dict()
    assert found.loc[False, "dtype"] == 4 and found.loc[False, "threads"] == 1


def test_whatever_a_trial_raises_leaves_a_traceback(tmp_path):
    (row,) = run(wanted("raising"), tmp_path / "run").to_dict("records")
    assert (row["status"], row["error"]) == ("failed", "KeyboardInterrupt: by hand")
    assert "raise KeyboardInterrupt" in Store(tmp_path / "run").read(row["key"])["traceback"]


def test_numbers_of_numpy_are_numbers(tmp_path):
    (row,) = run(wanted("numbered"), tmp_path / "run").to_dict("records")
    assert (row["status"], row["loss"]) == ("ok", 0.5)


@pytest.mark.slow
def test_a_suspended_sweep_exceeds_no_limit(tmp_path):
    """As by Slurm's suspension: the pool and its workers are stopped, and go on later."""
    sweep = wanted(
        "counting",
        base={"steps": 8, "sleep": 0.2},
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


def spec_of_rounds(tmp_path, steps=3):
    """Four trials, then rounds of refinement."""
    path = tmp_path / "spec.yaml"
    path.write_text(
        f"train: {FUNCTIONS}:counting\nbase: {{steps: {steps}, sleep: 0.05}}\n"
        "axes: {lr: [1, 2, 4], seed: [0, 1]}\nrefine: {axis: lr, rounds: 3, narrowest: 0.01}\n"
    )
    return path


def start(path, out):
    command = [*PARAMZ, "sweep", str(path), "--out", str(out), "--workers", "2", "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


def assert_stopped(process, out, before):
    """Exit code 130, the number of trials without a result, and no round that was begun since."""
    said, err = process.communicate(timeout=120)
    assert process.returncode == 130, (process.returncode, said, err)
    store = Store(out)
    asked, finished = store.trials(), store.finished()
    assert json.loads(said)["left"] == len(asked.keys() - finished), (said, err)
    assert "Traceback" not in err
    assert store.rounds() <= before + 1  # the one that was being written when the signal came
    if store.rounds() > before:
        started = {path.name for path in (out / "trials").iterdir()}
        new = {key for key in asked if key not in Store(out).finished()}
        assert not started & new


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_trial_stops_the_sweep(tmp_path, number):
    """At this moment no trial is in flight: the workers still import the training function."""
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(3)\ndef train(config): return {'loss': 1.0}\n")
    path = tmp_path / "spec.yaml"
    path.write_text(f"train: {slow}:train\naxes: {{lr: [1, 2, 4]}}\nrefine: {{axis: lr}}\n")
    process = start(path, tmp_path / "run")
    wait_for(lambda: list((tmp_path / "run").glob("trials/*")))
    process.send_signal(number)
    assert_stopped(process, tmp_path / "run", 0)
    assert Store(tmp_path / "run").finished() == set()


def test_a_signal_between_rounds_begins_no_round(tmp_path, monkeypatch):
    """The signal comes while the next round is computed."""

    def computed(sweep, store):
        stop.request()
        return {"0" * 16: {"lr": 3.0}}

    stop = Stop()
    monkeypatch.setattr(runner, "next_round", computed)
    sweep = Sweep.from_yaml(spec_of_rounds(tmp_path, steps=1))
    tally = runner.run_missing(sweep, Store(tmp_path / "run"), Options(stop=stop))
    assert tally.stopped and tally.complete and Store(tmp_path / "run").rounds() == 0


def test_trials_that_were_never_begun_are_left(tmp_path):
    stop = Stop()
    stop.request()
    sweep = Sweep.from_yaml(spec_of_rounds(tmp_path))
    store = Store(tmp_path / "run")
    given = prepare(sweep, store)
    tally = Pool(store, sweep.train, workers=1).run(
        [Assignment(key, config) for key, config in given.items()], stop
    )
    assert (tally.left, tally.stopped, tally.complete) == (6, True, False)


def test_a_full_disk_is_told_as_trials_that_finished_and_trials_that_never_began(
    tmp_path, monkeypatch, capsys
):
    sweep = wanted("numbered", axes={"n": [1, 2, 3, 4, 5]})
    store = Store(tmp_path / "run")
    trials = prepare(sweep, store)
    begun = []

    def refuses(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def claims(folder, claim=pool_module.claim):
        if len(begun) == 2:
            refuses()
        begun.append(folder.name)
        return claim(folder)

    monkeypatch.setattr(pool_module, "claim", claims)
    monkeypatch.setattr(Store, "save", refuses)
    monkeypatch.setattr(Recorder, "write_rest", partialmethod(at_once, Recorder.write_rest))
    tally = runner.run_trials(sweep, store, trials, Stop(), workers=1)
    assert tally.unsaved == set(begun) and tally.refused == trials.keys() - set(begun)
    assert (tally.left, tally.complete, store.finished()) == (5, False, set())
    said = capsys.readouterr().err
    assert "2 trials finished, but the disk did not take their results (is it full?)" in said
    assert "3 trials were not begun, because the disk did not take their first file" in said


def at_once(recorder, write_rest, patience):
    write_rest(recorder, patience=0)


@pytest.mark.slow
def test_interrupts_at_random_times(tmp_path):
    """PARAMZ_INTERRUPTS=50 makes it 50 rounds."""
    rng = random.Random(0)
    rounds = int(os.environ.get("PARAMZ_INTERRUPTS", "8"))
    stopped = 0
    for i in range(rounds):
        out = tmp_path / f"run-{i}"
        process = start(spec_of_rounds(tmp_path), out)
        wait_for((out / "trials.jsonl").exists)
        time.sleep(rng.uniform(0, 2.5))
        before = Store(out).rounds()
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        if process.poll() == 0:  # it had ended before
            continue
        assert_stopped(process, out, before)
        stopped += 1
    assert stopped >= rounds // 2


def test_a_hangup_saves_unless_the_sweep_was_started_with_nohup(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(wanted("counting", base={"steps": 30, "sleep": 0.05}).to_yaml())
    for i, prefix in enumerate(([], ["nohup"])):
        out = tmp_path / f"run-{i}"
        command = [*prefix, *PARAMZ, "sweep", str(spec), "--out", str(out)]
        process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True)
        wait_for(lambda out=out: list(out.glob("trials/*/history.jsonl")))
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=120)
        assert process.returncode == (0 if prefix else 130), err
        assert bool(re.search("saving checkpoints", err)) != bool(prefix)


@pytest.mark.parametrize(
    ("need", "gpus", "memory_gb", "most"),
    [
        ({"memory_gb": 10}, [], 25, 2),
        ({"memory_gb": 100}, [], 25, 1),
        ({"gpus": 0.5}, ["0"], None, 2),
        ({"gpus": 2}, ["0", "1", "2", "3"], None, 2),
        ({"gpus": 1}, [], 1000, 64),  # without a GPU they run on CPUs
        ({"cpus": 32}, ["0"], 1000, 2),
    ],
)
def test_the_number_of_workers_respects_what_a_trial_needs(
    monkeypatch, need, gpus, memory_gb, most
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
    default = {"cpus": 1, "gpus": 0, "nodes": 1, "memory_gb": 2, "minutes": None}
    assert capacity([Need(**default | need)], gpus, memory_gb) == most
