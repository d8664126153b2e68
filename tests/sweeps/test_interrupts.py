"""Signals at any moment: exit code 130, the true number of trials left, and no new round."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import pytest
from process_tools import FUNCTIONS, PARAMZ, wait_for, wanted

from paramz.sweeps import Store, Sweep
from paramz.sweeps.running import runner
from paramz.sweeps.running.launcher import Options
from paramz.sweeps.running.pool import Pool
from paramz.sweeps.running.process import Assignment
from paramz.sweeps.running.refine import next_round
from paramz.sweeps.running.runner import prepare, reopen
from paramz.sweeps.running.stopping import Stop


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
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        preexec_fn=heed_hangups,
    )  # fmt: skip


def heed_hangups():
    """As in a terminal, though the tests may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def nothing_is_left(out):
    """Whether all trials of all rounds have a result."""
    store = Store(out)
    return store.trials().keys() <= store.finished() and not next_round(reopen(store), store)


def assert_stopped(process, out, before, said, err):
    """Exit code 130, the number of trials without a result, and no round that was begun since."""
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
    slow.write_text("import time\ntime.sleep(3600)\ndef train(config): return {'loss': 1.0}\n")
    path = tmp_path / "spec.yaml"
    path.write_text(f"train: {slow}:train\naxes: {{lr: [1, 2, 4]}}\nrefine: {{axis: lr}}\n")
    process = start(path, tmp_path / "run")
    wait_for(lambda: list((tmp_path / "run").glob("trials/*")))
    process.send_signal(number)
    assert_stopped(process, tmp_path / "run", 0, *process.communicate(timeout=120))
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


def test_a_second_request_ends_trials_that_do_not_stop(tmp_path):
    """They had all of their time, whatever was asked meanwhile."""
    sweep = wanted("stubborn", base={"lr": 1})
    store = Store(tmp_path / "run")
    ((key, config),) = prepare(sweep, store).items()
    stop, pool = Stop(), Pool(store, sweep.train, workers=1)

    def insist():
        wait_for((store.trial(key) / "asked").exists)
        stop.request(grace=40.0)
        wait_for((store.trial(key) / "history.jsonl").exists)
        stop.request(grace=0.0)

    threading.Thread(target=insist).start()
    begun = time.monotonic()
    tally = pool.run([Assignment(key, config)], stop)
    assert tally.interrupted == {key} and time.monotonic() - begun < 40


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
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process.send_signal(number)
        said, err = process.communicate(timeout=120)
        if nothing_is_left(out):  # the signal met a sweep that was about to end
            assert process.returncode in (0, 130, -number), (process.returncode, said, err)
            continue
        assert_stopped(process, out, before, said, err)
        stopped += 1
    assert stopped >= rounds // 2


def test_a_hangup_saves_unless_the_sweep_was_started_with_nohup(tmp_path):
    spec = tmp_path / "spec.yaml"
    for i, (prefix, steps) in enumerate((([], 10_000), (["nohup"], 30))):  # only one is to end
        spec.write_text(wanted("counting", base={"steps": steps, "sleep": 0.05}).to_yaml())
        out = tmp_path / f"run-{i}"
        command = [*prefix, *PARAMZ, "sweep", str(spec), "--out", str(out)]
        command = [*command, "--workers", "2"]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_hangups
        )
        wait_for(lambda out=out: list(out.glob("trials/*/history.jsonl")))
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=120)
        assert process.returncode == (0 if prefix else 130), err
        assert bool(re.search("saving checkpoints", err)) != bool(prefix)
