"""Stores that were written before the folders of paramz were rearranged are still read."""

import json
import shutil
from pathlib import Path

import pytest

from paramz.check.sweep import check_sweep, gather, measure_trial
from paramz.sweeps import Store, Sweep, load, run
from paramz.sweeps.running.runner import prepare, reopen
from paramz.sweeps.spec.target import load_object

BEFORE = Path(__file__).parent / "stores_of_before"
LOSSES = {
    "plain": {
        "10096b1352070eaf": 8.0,
        "462f7c7e832864c5": 2.0,
        "5e70b21922f14d70": 4.0,
        "bae1682dee9fb00b": 4.0,
    },
    "check": {"6f9f6850b8d51e3c": 1.0876127481460571, "fbb095d5ddfa0d6b": 1.0527247190475464},
}


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A copy of the stores, and of the functions beside them, in the working directory."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*/run.json"):
        path.write_text(path.read_text().replace("FOLDER", str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep_of(name, folder):
    """The sweep as it is made today."""
    if name == "plain":
        return Sweep.from_yaml(folder / "plain" / "spec.yaml", folder)
    return check_sweep("model_of_before:task", minutes=5, widths=[8, 16], seeds=1, steps=1)


@pytest.mark.parametrize("name", ["plain", "check"])
def test_the_table_is_that_of_before(before, name):
    table = load(before / name)
    assert dict(zip(table["key"], table["loss"], strict=True)) == LOSSES[name]
    assert (table["status"] == "ok").all()


@pytest.mark.parametrize("name", ["plain", "check"])
def test_the_keys_are_those_of_before(before, name):
    store = Store(before / name)
    for wanted in (sweep_of(name, before), reopen(store)):
        assert wanted.trials == store.trials()
        assert wanted.trials.keys() == store.finished() == LOSSES[name].keys()


@pytest.mark.parametrize("name", ["plain", "check"])
def test_a_rerun_has_nothing_left_to_do(before, name):
    store = Store(before / name)
    attempts = sorted(store.root.glob("trials/*/attempt-*.json"))
    assert prepare(reopen(store), store) == {}
    assert prepare(sweep_of(name, before), store) == {}
    assert len(run(sweep_of(name, before), store.root)) == len(LOSSES[name])
    assert sorted(store.root.glob("trials/*/attempt-*.json")) == attempts


@pytest.mark.parametrize("name", ["plain", "check"])
def test_a_trial_that_is_missing_is_run_by_the_function_of_today(before, name):
    store = Store(before / name)
    key = min(LOSSES[name])
    store.result(key).unlink()
    table = run(reopen(store), store.root, workers=1).set_index("key")
    assert table["loss"].to_dict() == pytest.approx(LOSSES[name], rel=1e-4)
    assert store.read(key)["attempts"] == 2


def test_the_function_of_a_check_is_found_under_its_former_name(before):
    former = json.loads((before / "check" / "run.json").read_text())["train"]
    assert former == "paramz.check_sweep:measure_trial"
    assert load_object(former) is measure_trial
    assert reopen(Store(before / "check")).train == "paramz.check.sweep:measure_trial"


def test_the_rows_of_a_check_are_gathered(before):
    table = gather(sweep_of("check", before), Store(before / "check"))
    assert sorted(set(table["width"])) == [8, 16]
    written = [
        json.loads(path.read_text())["rows"] for path in before.glob("check/trials/*/rows.json")
    ]
    assert len(table) == sum(map(len, written)) > 0
