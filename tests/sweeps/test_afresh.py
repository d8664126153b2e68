"""Trials that run again: from what they have saved, or afresh, and under which code."""

import json

import pytest

from paramz.sweeps import Store, Sweep, load, run
from paramz.sweeps.running.runner import prepare
from paramz.sweeps.running.trial import Trial
from paramz.sweeps.store.merge import merge

# As docs/sweeps.md has it: a checkpoint is read wherever there is one, also that of the end.
TRAIN = """import json

def train(config, trial):
    saved = trial.directory / "checkpoint.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "loss": 0.0}
    while state["step"] < 4:
        if state["step"] == FAILS_AT:
            raise RuntimeError("a bad batch")
        state = {"step": state["step"] + 1, "loss": state["loss"] + GAIN * config["lr"]}
        saved.write_text(json.dumps(state))
        trial.log(state["step"], loss=state["loss"])
    return {"loss": state["loss"], "resumed": trial.resumed}
"""


def write(folder, gain=1.0, fails_at=-1):
    text = TRAIN.replace("GAIN", str(gain)).replace("FAILS_AT", str(fails_at))
    (folder / "lab.py").write_text(text)
    return Sweep(train=f"{folder}/lab.py:train", axes={"lr": [1.0]}, loss_limit=50)


def row(folder):
    (found,) = load(folder).to_dict("records")
    return found


def test_code_that_changed_does_not_go_on_from_the_checkpoint_of_before(tmp_path):
    run(write(tmp_path), tmp_path / "run")
    run(write(tmp_path, gain=10.0), tmp_path / "run", changed="rerun")
    assert (row(tmp_path / "run")["loss"], row(tmp_path / "run")["resumed"]) == (40.0, 0.0)
    store = Store(tmp_path / "run")
    (key,) = store.finished()
    steps = (store.trial(key) / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in steps] == [10.0, 20.0, 30.0, 40.0]
    before = store.trial(key) / "before-0001"
    assert json.loads((before / "checkpoint.json").read_text())["loss"] == 4.0
    assert (before / "log.txt").exists() and (before / "history.jsonl").exists()


def test_what_has_ended_is_run_again_from_its_start_and_what_failed_goes_on(tmp_path):
    run(write(tmp_path), tmp_path / "run")
    (tmp_path / "lab.py").write_text((tmp_path / "lab.py").read_text())  # the same code
    run(write(tmp_path), tmp_path / "run", retry="all")
    assert row(tmp_path / "run")["resumed"] == 0.0
    failing = write(tmp_path, fails_at=2)
    run(failing, tmp_path / "other")
    run(failing, tmp_path / "other")
    (attempts,) = (tmp_path / "other" / "trials").iterdir()
    lines = (attempts / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]  # no step twice


def test_a_trial_that_goes_on_under_other_code_is_told_of_and_marked(tmp_path):
    run(write(tmp_path, gain=1.0, fails_at=2), tmp_path / "run")
    fixed = write(tmp_path, gain=10.0)
    with pytest.warns(UserWarning, match="1 unfinished trial goes on from what it saved under oth"):
        run(fixed, tmp_path / "run")
    assert row(tmp_path / "run")["loss"] == 22.0  # of both codes
    store = Store(tmp_path / "run")
    (key,) = store.finished()
    assert store.read(key)["code"]["source"].count("+") == 1
    with pytest.warns(UserWarning, match="1 result is of other code"):
        prepare(fixed, store)
    prepare(fixed, store, changed="accept")
    assert prepare(fixed, store) == {}
    again = write(tmp_path, gain=100.0)
    run(again, store.root, changed="rerun", retry="none")
    assert row(store.root)["status"] == "diverged"


def test_unfinished_trials_begin_afresh_where_changed_code_is_run_again(tmp_path):
    run(write(tmp_path, fails_at=2), tmp_path / "run")
    run(write(tmp_path, gain=10.0), tmp_path / "run", changed="rerun")
    assert row(tmp_path / "run")["loss"] == 40.0


def test_functions_that_an_axis_names_are_part_of_the_code_of_now(tmp_path, recwarn):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"def {name}(config):\n    return 1\n")
    (tmp_path / "lab.py").write_text("def train(config):\n    return {'loss': 1}\n")
    tasks = [f"{tmp_path}/one.py:one", f"{tmp_path}/two.py:two"]
    sweep = Sweep(train=f"{tmp_path}/lab.py:train", axes={"task": tasks})
    run(sweep, tmp_path / "run")
    assert prepare(sweep, Store(tmp_path / "run"), changed="rerun") == {}
    (tmp_path / "two.py").write_text("def two(config):\n    return 2\n")
    with pytest.warns(UserWarning, match="1 result is of other code"):
        prepare(sweep, Store(tmp_path / "run"))
    prepare(sweep, Store(tmp_path / "run"), changed="accept")
    recwarn.clear()
    prepare(sweep, Store(tmp_path / "run"))
    assert not recwarn.list


def test_a_limit_of_the_loss_that_was_raised_is_told_of(tmp_path, recwarn):
    low = write(tmp_path, gain=20.0).model_copy(update={"loss_limit": 30.0})
    run(low, tmp_path / "run")
    assert row(tmp_path / "run")["status"] == "diverged"
    prepare(low, Store(tmp_path / "run"))
    prepare(low.model_copy(update={"loss_limit": 39.0}), Store(tmp_path / "run"))
    assert not recwarn.list
    high = low.model_copy(update={"loss_limit": 100.0})
    with pytest.warns(UserWarning, match="1 trial diverged by a lower loss_limit than the spec, "):
        prepare(high, Store(tmp_path / "run"))
    run(high, tmp_path / "run", retry="diverged")
    assert row(tmp_path / "run")["loss"] == 80.0


def test_a_merged_result_that_replaces_a_failure_brings_its_own_history(tmp_path):
    run(write(tmp_path, fails_at=2), tmp_path / "mine")
    run(write(tmp_path, gain=10.0), tmp_path / "theirs")
    merge(Store(tmp_path / "mine"), [Store(tmp_path / "theirs")])
    (folder,) = (tmp_path / "mine" / "trials").iterdir()
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [10.0, 20.0, 30.0, 40.0]


def test_an_attempt_after_what_was_put_aside_is_no_resumed_one(tmp_path):
    assert Trial(tmp_path, attempt=3).resumed
    (tmp_path / "before-0002").mkdir()
    assert not Trial(tmp_path, attempt=3).resumed
    assert Trial(tmp_path, attempt=4).resumed
